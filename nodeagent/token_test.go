package nodeagent_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// Token implements nodeagent.TokenGiver.
func (c *control) Token(ctx context.Context, r schema.TokenRequest) (schema.Token, error) {
	c.mu.Lock()
	give := c.token
	c.mu.Unlock()
	if give == nil {
		return schema.Token{}, fmt.Errorf("not connected to the control plane: %w", schema.ErrUnavailable)
	}
	return give(ctx, r)
}

// A mint gives tokens and counts them.
type mint struct {
	mu    sync.Mutex
	asked []time.Time
	err   error
	skew  time.Duration // of the control plane's clock
}

func (m *mint) give(_ context.Context, r schema.TokenRequest) (schema.Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, time.Now())
	if m.err != nil {
		return schema.Token{}, m.err
	}
	issued := time.Now().Add(m.skew).Truncate(time.Second)
	expires := issued.Add(time.Duration(r.Seconds) * time.Second)
	return schema.Token{Token: tokenText(r.UID, len(m.asked), issued, expires), Issued: issued, Expires: expires}, nil
}

// tokenText has the form of a token; nobody here looks at its signature.
func tokenText(uid types.UID, serial int, issued, expires time.Time) string {
	payload := fmt.Sprintf(`{"iat":%d,"exp":%d,"jti":"%d","kubernetes.io":{"pod":{"uid":%q}}}`, issued.Unix(), expires.Unix(), serial, uid)
	return "h." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + fmt.Sprintf(".%d", serial)
}

func (m *mint) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.asked)
}

func (m *mint) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// holder is a pod with a token.
func holder(seconds int64) *corev1.Pod {
	p := newPod("robot")
	p.Spec.Volumes = []corev1.Volume{{Name: "id", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To(seconds)}}},
	}}}}
	return p
}

// heldToken is which token the pod's file holds; "" for none.
func (r *rig) heldToken(uid types.UID) string {
	r.world.mu.Lock()
	defer r.world.mu.Unlock()
	text := r.world.volumes[uid]["id/token"]
	return text[strings.LastIndex(text, ".")+1:]
}

func (r *rig) mint(m *mint) {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	r.ctl.token = nil
	if m != nil {
		r.ctl.token = m.give
	}
}

// refreshes counts the Events about tokens that were not replaced.
func (r *rig) refreshes() (n int32) {
	r.ctl.mu.Lock()
	defer r.ctl.mu.Unlock()
	for _, e := range r.ctl.events {
		if e.Reason == "FailedTokenRefresh" {
			n += e.Count
		}
	}
	return n
}

func TestATokenIsReplacedBeforeItEnds(t *testing.T) {
	for name, c := range map[string]struct {
		seconds int64
		skew    time.Duration
		after   time.Duration
	}{
		"an hour":                        {3600, 0, 48 * time.Minute},
		"the shortest":                   {600, 0, 8 * time.Minute},
		"a month":                        {30 * 24 * 3600, 0, 24 * time.Hour},
		"a control plane that is ahead":  {3600, 3 * time.Hour, 48 * time.Minute},
		"a control plane that is behind": {3600, -3 * time.Hour, 48 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				m := &mint{skew: c.skew}
				r.mint(m)
				r.begin(true)
				p := holder(c.seconds)
				r.assign(p)
				if got := r.heldToken(p.UID); got != "1" || m.count() != 1 {
					t.Fatalf("token %q after %d questions", got, m.count())
				}
				id := r.only(p.UID).ID
				r.after(c.after - 20*time.Second)
				if got := r.heldToken(p.UID); got != "1" || m.count() != 1 {
					t.Errorf("too early: token %q after %d questions", got, m.count())
				}
				r.after(21 * time.Second)
				if got := r.heldToken(p.UID); got != "2" || m.count() != 2 {
					t.Errorf("in time: token %q after %d questions", got, m.count())
				}
				r.after(c.after)
				if got := r.heldToken(p.UID); got != "3" {
					t.Errorf("and again: token %q", got)
				}
				if r.only(p.UID).ID != id {
					t.Error("the container was started anew")
				}
			})
		})
	}
}

func TestAPodKeepsItsTokenWhileTheControlPlaneIsAway(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		m := &mint{}
		r.mint(m)
		r.begin(true)
		p := holder(3600)
		r.assign(p)
		m.fail(fmt.Errorf("no gateway listens: %w", schema.ErrUnavailable))
		r.after(50 * time.Minute)
		if got := r.heldToken(p.UID); got != "1" || r.refreshes() == 0 {
			t.Errorf("token %q, %d events", got, r.refreshes())
		}
		asked := m.count()
		r.after(10 * time.Minute)
		if n := m.count() - asked; n < 9 || n > 25 {
			t.Errorf("%d questions in 10 minutes, want one a minute or so", n)
		}
		if got := r.heldToken(p.UID); got != "1" { // it has ended: an old one tells more than none
			t.Errorf("token %q", got)
		}
		r.exit(p.UID, 1) // and the container may restart with it
		r.after(time.Minute)
		r.only(p.UID)
		m.fail(nil)
		r.after(2 * time.Minute)
		if got := r.heldToken(p.UID); got == "1" {
			t.Error("the control plane is back, and the pod has the old token")
		}
		asked = m.count()
		r.after(40 * time.Minute)
		if n := m.count() - asked; n != 0 {
			t.Errorf("%d questions for a token that is fresh", n)
		}
	})
}

func TestAPodWithoutATokenWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.begin(true)
		p := holder(3600)
		r.assign(p)
		r.after(30 * time.Second)
		if why := r.waitsFor(p.UID); !strings.Contains(why, "failed to fetch token: not connected to the control plane") {
			t.Errorf("waits for %q", why)
		}
		m := &mint{}
		r.mint(m)
		r.ctl.sync() // it is back
		r.after(time.Second)
		if got := r.heldToken(p.UID); got != "1" {
			t.Errorf("token %q", got)
		}
		r.only(p.UID)
	})
}

// A gateway that does not answer holds up the pod that waits, and no other.
func TestAGatewayThatHangsHoldsUpNobodyElse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ctl.token = func(ctx context.Context, _ schema.TokenRequest) (schema.Token, error) {
			<-ctx.Done()
			return schema.Token{}, fmt.Errorf("no answer: %w: %w", ctx.Err(), schema.ErrUnavailable)
		}
		r.begin(true)
		p, other := holder(3600), newPod("web")
		r.assign(p, other)
		r.only(other.UID)
		r.after(4 * time.Second)
		if why := r.waitsFor(p.UID); !strings.Contains(why, "no answer") {
			t.Errorf("waits for %q", why)
		}
		began := time.Now()
		r.delete(p, 0)
		for len(r.containers(p.UID)) > 0 && time.Since(began) < time.Minute {
			r.after(time.Second)
		}
		r.after(time.Second)
		r.empty(p.UID)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("gone after %v", took)
		}
	})
}

func TestAKilledAgentAsksForNoNewToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		m := &mint{}
		r.mint(m)
		r.begin(true)
		p := holder(3600)
		r.assign(p)
		r.after(10 * time.Minute)
		r.kill()
		r.mint(nil)
		r.begin(true) // the control plane is away now
		r.after(time.Minute)
		r.only(p.UID)
		if got := r.heldToken(p.UID); got != "1" || m.count() != 1 {
			t.Errorf("token %q after %d questions", got, m.count())
		}
		r.after(35 * time.Minute)
		r.mint(m)
		r.after(3 * time.Minute)
		if got := r.heldToken(p.UID); got != "2" {
			t.Errorf("48 minutes after its beginning: token %q", got)
		}
	})
}

// Over and without a control plane at the start of the agent: the token is asked
// for until there is one.
func TestAKilledAgentReplacesATokenThatHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		m := &mint{}
		r.mint(m)
		r.begin(true)
		p := holder(600)
		r.assign(p)
		r.kill()
		r.mint(nil)
		time.Sleep(time.Hour)
		r.begin(true)
		r.after(time.Minute)
		r.only(p.UID)
		if got := r.heldToken(p.UID); got != "1" {
			t.Errorf("token %q", got)
		}
		r.mint(m)
		r.after(2 * time.Minute)
		if got := r.heldToken(p.UID); got != "2" {
			t.Errorf("the control plane is back: token %q", got)
		}
	})
}

func TestNobodyAsksForTokensOfPodsThatHaveEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		m := &mint{}
		r.mint(m)
		r.begin(true)
		done, gone := holder(600), holder(600)
		done.Spec.RestartPolicy = corev1.RestartPolicyNever
		gone.Name, gone.UID = "gone", uidOf("gone")
		r.assign(done, gone)
		r.exit(done.UID, 0)
		r.delete(gone, 0)
		r.after(time.Minute)
		r.empty(gone.UID)
		r.unassign(gone)
		asked := m.count()
		r.after(time.Hour)
		if n := m.count() - asked; n != 0 {
			t.Errorf("%d questions", n)
		}
	})
}

func TestTheGatewaysAnswerMustBeAToken(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		now := time.Now()
		answers := []schema.Token{{}, {Token: "x", Issued: now, Expires: now}, {Token: strings.Repeat("x", 20_000), Issued: now, Expires: now.Add(time.Hour)}}
		i := 0
		r.ctl.token = func(context.Context, schema.TokenRequest) (schema.Token, error) {
			i++
			return answers[(i-1)%len(answers)], nil
		}
		r.begin(true)
		p := holder(3600)
		r.assign(p)
		r.after(20 * time.Second)
		if why := r.waitsFor(p.UID); i < 3 || !strings.Contains(why, "is no token") {
			t.Errorf("after %d answers: waits for %q", i, why)
		}
	})
}

// A node without a Link that gives tokens says so.
func TestWithoutAControlPlaneThereAreNoTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.link = linkOnly{r.ctl}
		r.begin(true)
		p := holder(3600)
		r.assign(p)
		r.after(time.Second)
		if why := r.waitsFor(p.UID); !strings.Contains(why, "there is no control plane to ask") {
			t.Errorf("waits for %q", why)
		}
	})
}

// linkOnly hides what a Link has besides.
type linkOnly struct{ nodeagent.Link }

func FuzzTokenTimes(f *testing.F) {
	began := time.Unix(1_800_000_000, 0)
	f.Add(tokenText("uid", 1, began, began.Add(time.Hour)))
	f.Add("..")
	f.Add("h." + base64.RawURLEncoding.EncodeToString([]byte(`{"iat":-1,"exp":1e300,"kubernetes.io":{"pod":{"uid":"uid"}}}`)) + ".s")
	f.Add("h." + base64.RawURLEncoding.EncodeToString([]byte(`{"iat":"x","kubernetes.io":[]}`)) + ".s")
	f.Fuzz(func(t *testing.T, token string) {
		issued, expires, ok := nodeagent.TokenTimes(token, "uid")
		if ok && (!expires.After(issued) && !expires.Equal(issued) || issued.Year() < 1970 || expires.Year() > 2300) {
			t.Errorf("%q: from %v to %v", token, issued, expires)
		}
		if _, _, ok := nodeagent.TokenTimes(token, "another"); ok && strings.Contains(token, "h.") && !strings.Contains(token, "another") {
			if payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1]); err == nil && !strings.Contains(string(payload), "another") {
				t.Errorf("%q is taken for another pod's", token)
			}
		}
	})
}
