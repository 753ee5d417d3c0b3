package nodeagent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// The tokens of the pods' service accounts. The node asks the gateway for them,
// one by one, and keeps them in memory and in the pods' volumes alone. A pod
// starts with a token, and keeps the last one it had for as long as there is no
// newer one, whatever becomes of the control plane.

// Tokens is what Objects may be besides: who has the tokens of pods.
type Tokens interface {
	// Token returns the token that one of the pod's projections asks for. have is
	// the token that the pod's file holds; "": there is none. The error wraps
	// schema.ErrUnavailable or schema.ErrRefused.
	Token(ctx context.Context, p *corev1.Pod, t *corev1.ServiceAccountTokenProjection, have string) (string, error)
}

// TokenGiver is what a Link may have besides, to give tokens. Without it there
// are none, and a pod that needs one waits.
type TokenGiver interface {
	Token(ctx context.Context, r schema.TokenRequest) (schema.Token, error)
}

const (
	tokenLimit    = 3 * time.Second // for one token: less than a person's patience
	tokensAtOnce  = 4               // asked for beside the pods' workers
	tokenRefresh  = 0.8             // of its life is over: as Kubernetes has it,
	tokenOld      = 24 * time.Hour  // or it is so old
	tokenSpread   = 10 * time.Second
	tokenRetry    = time.Second
	tokenRetryMax = time.Minute
	// mostTokenBytes bounds what is read of a token.
	mostTokenBytes = 16 << 10
)

// tokenKey is what a projection asks for.
type tokenKey struct {
	audience string
	seconds  int64
}

// A heldToken is one that a pod has.
type heldToken struct {
	pod      schema.PodKey
	text     string
	expires  time.Time // by this node's clock
	due      time.Time // to be asked for anew
	failures int
}

// tokens keeps the tokens of the node's pods fresh.
type tokens struct {
	giver TokenGiver // nil: there is none
	wake  chan struct{}

	mu   sync.Mutex
	held map[types.UID]map[tokenKey]*heldToken
}

func newTokens(l Link) *tokens {
	giver, ok := l.(TokenGiver)
	if !ok {
		giver = nil
	}
	return &tokens{giver: giver, wake: make(chan struct{}, 1), held: map[types.UID]map[tokenKey]*heldToken{}}
}

// Token implements Tokens. After a restart of the agent the pod's file is what is
// remembered.
func (t *tokens) Token(ctx context.Context, p *corev1.Pod, q *corev1.ServiceAccountTokenProjection, have string) (string, error) {
	k, now := tokenKey{q.Audience, schema.TokenSeconds(q)}, time.Now()
	if text := t.current(p.UID, k, now); text != "" {
		return text, nil
	}
	if issued, expires, ok := tokenTimes(have, p.UID); ok && now.Before(expires) {
		t.put(p.UID, k, &heldToken{pod: keyOf(p), text: have, expires: expires, due: tokenDue(issued, expires)})
		return have, nil
	}
	text, err := t.ask(ctx, keyOf(p), p.UID, k)
	if err != nil {
		if have != "" { // the pod goes on with it, until there is another
			t.put(p.UID, k, &heldToken{pod: keyOf(p), text: have, expires: now, due: now.Add(tokenRetry)})
		}
		return "", fmt.Errorf("failed to fetch token: %w", err)
	}
	return text, nil
}

// current is the token that a pod has; "" when it is over.
func (t *tokens) current(uid types.UID, k tokenKey, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.held[uid][k]; h != nil && now.Before(h.expires) {
		return h.text
	}
	return ""
}

func (t *tokens) put(uid types.UID, k tokenKey, h *heldToken) {
	t.mu.Lock()
	if t.held[uid] == nil {
		t.held[uid] = map[tokenKey]*heldToken{}
	}
	t.held[uid][k] = h
	t.mu.Unlock()
	t.look()
}

// look has the times looked at anew.
func (t *tokens) look() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// ask fetches a token and keeps it. Its life is counted from now, by this node's
// clock, so that it does not matter what the control plane's says.
func (t *tokens) ask(ctx context.Context, pod schema.PodKey, uid types.UID, k tokenKey) (string, error) {
	if t.giver == nil {
		return "", fmt.Errorf("there is no control plane to ask: %w", schema.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, tokenLimit)
	defer cancel()
	now := time.Now()
	got, err := t.giver.Token(ctx, schema.TokenRequest{Pod: pod, UID: uid, Audience: k.audience, Seconds: k.seconds})
	if err != nil {
		return "", err
	}
	life := got.Expires.Sub(got.Issued)
	if got.Token == "" || len(got.Token) > mostTokenBytes || life <= 0 {
		return "", fmt.Errorf("the gateway's answer is no token: %w", schema.ErrUnavailable)
	}
	expires := now.Add(life)
	t.put(uid, k, &heldToken{pod: pod, text: got.Token, expires: expires, due: tokenDue(now, expires)})
	return got.Token, nil
}

// tokenDue is when a token is to be replaced; tokens that were made together are
// not replaced together.
func tokenDue(issued, expires time.Time) time.Time {
	after := min(time.Duration(tokenRefresh*float64(expires.Sub(issued))), tokenOld)
	return issued.Add(after - rand.N(tokenSpread))
}

// drop forgets the tokens of a pod that is gone.
func (t *tokens) drop(uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, uid)
}

// hasten has what failed tried again at once: the control plane is back.
func (t *tokens) hasten() {
	now := time.Now()
	t.mu.Lock()
	for _, all := range t.held {
		for _, h := range all {
			if h.failures > 0 {
				h.due = now
			}
		}
	}
	t.mu.Unlock()
	t.look()
}

// An oldToken is one that is to be replaced.
type oldToken struct {
	uid types.UID
	key tokenKey
	heldToken
}

// old lists the tokens that are due, and says when the next one is; zero: none is.
func (t *tokens) old(now time.Time) (due []oldToken, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, all := range t.held {
		for k, h := range all {
			switch {
			case !h.due.After(now):
				due = append(due, oldToken{uid, k, *h})
			case next.IsZero() || h.due.Before(next):
				next = h.due
			}
		}
	}
	return due, next
}

// failed puts a token's next attempt off. It is false when the pod is gone or has
// another one by now.
func (t *tokens) failed(o oldToken) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[o.uid][o.key]
	if h == nil || h.text != o.text {
		return false
	}
	wait := min(tokenRetry<<min(h.failures, 10), tokenRetryMax)
	h.failures++
	h.due = time.Now().Add(wait/2 + rand.N(wait/2))
	return true
}

// refreshTokens replaces tokens before they end, until ctx is done. It works
// beside the pods' workers, which only put into the volumes what it has.
func (a *agent) refreshTokens(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.tokens.wake:
		case <-timer.C:
		}
		due, _ := a.tokens.old(time.Now())
		a.refreshAll(ctx, due)
		if _, next := a.tokens.old(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

func (a *agent) refreshAll(ctx context.Context, due []oldToken) {
	g := new(errgroup.Group)
	g.SetLimit(tokensAtOnce)
	for _, o := range due {
		g.Go(func() error {
			a.refreshToken(ctx, o)
			return nil
		})
	}
	_ = g.Wait() //nolint:errcheck // each has told of its own
}

func (a *agent) refreshToken(ctx context.Context, o oldToken) {
	w := a.workerOf(o.uid)
	if w == nil || w.hasEnded() {
		a.tokens.drop(o.uid) // nobody reads it any more
		return
	}
	_, err := a.tokens.ask(ctx, o.pod, o.uid, o.key)
	if err == nil {
		w.post((*worker).tokensChanged)
		return
	}
	if ctx.Err() != nil || !a.tokens.failed(o) {
		return
	}
	state := "it has ended"
	if time.Now().Before(o.expires) {
		state = "it is good until " + o.expires.UTC().Format(time.RFC3339)
	}
	w.log.Warn("cannot replace the token of the pod's service account; it keeps the one it has", "expires", o.expires, "err", err)
	w.warn("", "FailedTokenRefresh", "cannot replace the token of its service account, and "+state+": "+schema.Text(err))
}

func (a *agent) workerOf(uid types.UID) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[uid]
}

// hasEnded says whether no container of the pod will run again.
func (w *worker) hasEnded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone || w.shown != nil && (w.shown.Phase == corev1.PodSucceeded || w.shown.Phase == corev1.PodFailed)
}

// tokensChanged has the volumes brought up to date.
func (w *worker) tokensChanged() {
	w.known.VolumesReady = false
	w.known.Volumes.RetryAt = w.known.Volumes.At
}

// hastenTokens has tried at once what waits for a token.
func (a *agent) hastenTokens() {
	a.tokens.hasten()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.pods {
		if usesTokens(w.wanted()) {
			w.post(func(w *worker) {
				if !w.known.VolumesReady {
					w.known.Volumes.RetryAt = w.known.Volumes.At
				}
			})
		}
	}
}

func usesTokens(p *corev1.Pod) bool {
	for i := range p.Spec.Volumes {
		if projected := p.Spec.Volumes[i].Projected; projected != nil {
			for j := range projected.Sources {
				if projected.Sources[j].ServiceAccountToken != nil {
					return true
				}
			}
		}
	}
	return false
}

// podSources are what a pod's volumes are made from.
type podSources struct {
	*objects
	*tokens
}

// tokenTimes reads from a token of this pod when it was issued and when it ends.
// The signature is not looked at, for want of the key: the node wrote the file.
func tokenTimes(token string, uid types.UID) (issued, expires time.Time, ok bool) {
	parts := strings.Split(token, ".")
	if len(token) > mostTokenBytes || len(parts) != 3 {
		return time.Time{}, time.Time{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}, time.Time{}, false
	}
	var claims struct {
		Issued     float64 `json:"iat"`
		Expires    float64 `json:"exp"`
		Kubernetes struct {
			Pod struct {
				UID types.UID `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Kubernetes.Pod.UID != uid || uid == "" {
		return time.Time{}, time.Time{}, false
	}
	if claims.Issued < 0 || claims.Expires <= claims.Issued || claims.Expires > math.MaxUint32*2 {
		return time.Time{}, time.Time{}, false
	}
	return time.Unix(int64(claims.Issued), 0), time.Unix(int64(claims.Expires), 0), true
}
