package gateway

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Tokens of service accounts: a node asks for those of its pods. It never holds
// the key, and is given only what a pod of its own asks for in its spec: the
// account, the audience and the life are not the node's to choose.

// A TokenOrder is a token to be made; everything in it was checked.
type TokenOrder struct {
	Node       schema.NodeName
	Pod        *corev1.Pod // read-only
	AccountUID types.UID
	Audience   string // "": the API
	Life       time.Duration
}

// token answers a node's request for a token.
func (g *Gateway) token(r kv.Request) {
	order, err := g.tokenOrder(r)
	if err != nil {
		g.refuse(r, "token refused", err)
		return
	}
	t, err := g.o.IssueToken(order)
	if err != nil {
		if !errors.Is(err, schema.ErrRefused) {
			g.log.Error("token of a service account cannot be made", "node", string(r.Node), "error", err)
		}
		g.refuse(r, "token not made", err)
		return
	}
	g.answer(r, kv.Answer{Token: &t})
}

// tokenOrder says what token is to be made for a request, or why none is.
func (g *Gateway) tokenOrder(r kv.Request) (TokenOrder, error) {
	q, err := kv.DecodeTokenRequest(r.Data)
	if err != nil {
		return TokenOrder{}, err
	}
	switch {
	case g.o.IssueToken == nil:
		return TokenOrder{}, fmt.Errorf("this cluster makes no tokens: %w", schema.ErrRefused)
	case !g.whole():
		return TokenOrder{}, fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)
	}
	pod, err := g.podOf(r.Node, q.Pod, q.UID)
	if err != nil {
		return TokenOrder{}, err
	}
	if !asksFor(pod, q.Audience, q.Seconds) {
		return TokenOrder{}, fmt.Errorf("pod %s has no volume that asks for such a token: %w", q.Pod, schema.ErrRefused)
	}
	account, err := g.account(q.Pod.Namespace, schema.AccountOf(&pod.Spec))
	if err != nil {
		return TokenOrder{}, err
	}
	return TokenOrder{Node: r.Node, Pod: pod, AccountUID: account, Audience: q.Audience, Life: time.Duration(q.Seconds) * time.Second}, nil
}

// podOf is the pod with that uid, as it is assigned to that very node. Of other
// nodes' pods a node learns nothing: the error is that of a pod which is nowhere.
func (g *Gateway) podOf(n schema.NodeName, k schema.PodKey, uid types.UID) (*corev1.Pod, error) {
	nowhere := fmt.Errorf("pods %q with uid %q is not assigned to this node: %w", k.Name, uid, schema.ErrRefused)
	if k.Namespace == "" || k.Name == "" || uid == "" || !g.pods[n][k] {
		return nil, nowhere
	}
	key := kv.AssignmentKey(n, k)
	e, ok := g.o.Assignments.Get(key)
	switch {
	case !ok && (e.Revision != 0 || g.o.Assignments.Lost(key)):
		return nil, fmt.Errorf("the assignment of pods %q cannot be read: %w", k.Name, schema.ErrUnavailable)
	case !ok || e.Value.Pod.UID != uid:
		return nil, nowhere
	}
	return &e.Value.Pod, nil
}

// account is the uid of a service account that exists. "default" always does.
func (g *Gateway) account(namespace, name string) (types.UID, error) {
	k := schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: namespace, Name: name}
	if _, ok := g.o.Desired.Get(kv.ObjectKey(k)); !ok && name != schema.DefaultAccount {
		return "", fmt.Errorf("serviceaccounts %q not found: %w", name, schema.ErrUnavailable)
	}
	return schema.UIDOf(k), nil
}

// asksFor says whether a volume of the pod asks for a token of that audience and life.
func asksFor(p *corev1.Pod, audience string, seconds int64) bool {
	for i := range p.Spec.Volumes {
		projected := p.Spec.Volumes[i].Projected
		if projected == nil {
			continue
		}
		for j := range projected.Sources {
			t := projected.Sources[j].ServiceAccountToken
			if t != nil && t.Audience == audience && schema.TokenSeconds(t) == seconds {
				return true
			}
		}
	}
	return false
}

// rootCARevision tells rootCA from every object of the store, whose revisions
// count from 1: it never changes while the gateway runs.
const rootCARevision = math.MaxUint64

// rootCA is the ConfigMap that every namespace has, though nobody declares it:
// what pods need to trust the API; nil when it is another object, or there is none.
func (g *Gateway) rootCA(k schema.ObjectKey) *corev1.ConfigMap {
	if len(g.o.RootCA) == 0 || k.Kind != schema.ConfigMaps || k.Name != schema.RootCAConfigMap {
		return nil
	}
	return &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: k.Namespace, Name: k.Name, UID: schema.UIDOf(k)},
		Data:       map[string]string{"ca.crt": string(g.o.RootCA)},
	}
}
