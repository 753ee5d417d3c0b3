package gateway

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func (c *cluster) issueToken(o TokenOrder) (schema.Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.Audience == "broken" {
		return schema.Token{}, errors.New("the key is broken")
	}
	c.orders = append(c.orders, o)
	return schema.Token{Token: fmt.Sprintf("%s for %s", o.Pod.UID, o.Audience)}, nil
}

func (c *cluster) issued() []TokenOrder {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.orders)
}

// asking gives a pod volumes that ask for tokens of these audiences.
func asking(account string, seconds int64, audiences ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = account
		for _, a := range audiences {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v" + a, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: a, ExpirationSeconds: ptr.To(seconds)}}},
			}}})
		}
	}
}

func request(p *corev1.Pod, audience string, seconds int64) schema.TokenRequest {
	return schema.TokenRequest{Pod: schema.PodKey{Namespace: p.Namespace, Name: p.Name}, UID: p.UID, Audience: audience, Seconds: seconds}
}

func account(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
	}
}

func TestANodeGetsTheTokensItsPodsAskFor(t *testing.T) {
	c := newCluster(t)
	mine := pod("mine", asking("", 600, "", "vault"))
	c.assign("n1", mine)
	n1 := c.agent("n1")
	for _, audience := range []string{"", "vault"} {
		got, err := n1.Token(t.Context(), request(mine, audience, 600))
		if err != nil || got.Token != "uid-mine for "+audience {
			t.Errorf("%q: %+v, %v", audience, got, err)
		}
	}
	defaultUID := schema.UIDOf(schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: "default", Name: "default"})
	for _, o := range c.issued() {
		if o.Node != "n1" || o.Pod.UID != "uid-mine" || o.AccountUID != defaultUID || o.Life != 10*time.Minute {
			t.Errorf("%+v", o)
		}
	}
}

// Whatever a node asks for beyond what its own pods ask for in their specs, it is
// refused, and the answer says no more of another node's pod than of none.
func TestANodeGetsNoOtherTokens(t *testing.T) {
	c := newCluster(t)
	mine, theirs, plain := pod("mine", asking("robot", 600, "")), pod("theirs", asking("robot", 600, "")), pod("plain")
	c.desire(account("robot"))
	c.assign("n1", mine)
	c.assign("n1", plain)
	c.assign("n2", theirs)
	n1 := c.agent("n1")
	with := func(change func(*schema.TokenRequest)) schema.TokenRequest {
		r := request(mine, "", 600)
		change(&r)
		return r
	}
	if _, err := n1.Token(t.Context(), request(mine, "", 600)); err != nil {
		t.Fatalf("what is changed below is granted: %v", err)
	}
	for name, r := range map[string]schema.TokenRequest{
		"a pod of another node":         request(theirs, "", 600),
		"a pod that is nowhere":         request(pod("nowhere"), "", 600),
		"its own pod's earlier uid":     with(func(r *schema.TokenRequest) { r.UID = "uid-before" }),
		"another pod's uid":             with(func(r *schema.TokenRequest) { r.UID = "uid-theirs" }),
		"another pod's name":            with(func(r *schema.TokenRequest) { r.Pod.Name = "theirs" }),
		"no uid":                        with(func(r *schema.TokenRequest) { r.UID = "" }),
		"no name":                       with(func(r *schema.TokenRequest) { r.Pod.Name = "" }),
		"a wildcard":                    with(func(r *schema.TokenRequest) { r.Pod.Name = "*" }),
		"another namespace":             with(func(r *schema.TokenRequest) { r.Pod.Namespace = "kube-system" }),
		"an audience nobody asked for":  with(func(r *schema.TokenRequest) { r.Audience = "vault" }),
		"a longer life":                 with(func(r *schema.TokenRequest) { r.Seconds = 1 << 30 }),
		"no life":                       with(func(r *schema.TokenRequest) { r.Seconds = 0 }),
		"a pod that asks for no tokens": request(plain, "", 3600),
		"a request that is too long":    with(func(r *schema.TokenRequest) { r.Audience = strings.Repeat("a", 20_000) }),
	} {
		if got, err := n1.Token(t.Context(), r); !errors.Is(err, schema.ErrRefused) || got.Token != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	_, other := n1.Token(t.Context(), request(theirs, "", 600))
	_, none := n1.Token(t.Context(), with(func(r *schema.TokenRequest) { r.Pod.Name, r.UID = "nobody", "uid-nobody" }))
	if a, b := strings.ReplaceAll(other.Error(), "theirs", "X"), strings.ReplaceAll(none.Error(), "nobody", "X"); a != b {
		t.Errorf("the answers differ:\n%s\n%s", a, b)
	}
	if n := len(c.issued()); n != 1 {
		t.Errorf("%d tokens were made, want 1", n)
	}
}

func TestATokenEndsWithTheAssignmentAndNeedsTheAccount(t *testing.T) {
	c := newCluster(t)
	mine := pod("mine", asking("robot", 600, "", "broken"))
	c.assign("n1", mine)
	n1 := c.agent("n1")
	_, err := n1.Token(t.Context(), request(mine, "", 600))
	if !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), `serviceaccounts "robot" not found`) {
		t.Errorf("an account that is not there: %v", err)
	}
	c.desire(account("robot"))
	if _, err := n1.Token(t.Context(), request(mine, "", 600)); err != nil {
		t.Errorf("once it is there: %v", err)
	}
	if _, err := n1.Token(t.Context(), request(mine, "broken", 600)); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("a token that cannot be made: %v", err)
	}
	c.remove(kv.Assignments, kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "mine"}))
	if _, err := n1.Token(t.Context(), request(mine, "", 600)); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("after the assignment: %v", err)
	}
}

func TestEveryNamespaceHasTheRootCA(t *testing.T) {
	c := newCluster(t)
	uses := pod("mine", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: schema.RootCAConfigMap},
		}}}}
	})
	c.assign("n1", uses)
	n1 := c.agent("n1")
	has := func(want string) func() bool {
		return n1.holds(func(a *agent) bool { return a.maps[schema.RootCAConfigMap].Data["ca.crt"] == want })
	}
	eventually(t, "the root that nobody declared comes", has("the root"))
	own := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: schema.RootCAConfigMap}, Data: map[string]string{"ca.crt": "mine"},
	}
	c.desire(own)
	eventually(t, "one's own goes before it", has("mine"))
	c.remove(kv.Desired, kv.ObjectKey(schema.KeyOf(own)))
	eventually(t, "and after it the other one is back", has("the root"))
	c.remove(kv.Assignments, kv.AssignmentKey("n1", schema.PodKey{Namespace: "default", Name: "mine"}))
	eventually(t, "without a user it is not there", has(""))
}

func FuzzTokenRequest(f *testing.F) {
	f.Add([]byte(`{"pod":{"namespace":"default","name":"mine"},"uid":"uid-mine","audience":"","seconds":600}`))
	f.Add([]byte(`{"pod":null,"seconds":1e99}`))
	f.Add([]byte(`[[[[`))
	mine := pod("mine", asking("robot", 600, "vault"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := kv.DecodeTokenRequest(data)
		if err != nil {
			if !errors.Is(err, schema.ErrRefused) || r != (schema.TokenRequest{}) {
				t.Errorf("%+v, %v", r, err)
			}
			return
		}
		if asksFor(mine, r.Audience, r.Seconds) && (r.Audience != "vault" || r.Seconds != 600) {
			t.Errorf("%+v is granted", r)
		}
	})
}
