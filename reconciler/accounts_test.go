package reconciler

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/reconciler/gateway"
	"github.com/pawl-project/pawl/schema"
)

func TestOnlyTheRolesOfPeopleAreGivenToAccounts(t *testing.T) {
	for given, want := range map[string]access.Role{"view": access.View, "admin": access.Admin, "": "", "root": "", "View": "", "view ": ""} {
		a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{schema.AnnotationRole: given}}}
		if got := roleOf(a); got != want {
			t.Errorf("%q gives the role %q", given, got)
		}
	}
	if got := roleOf(&corev1.ServiceAccount{}); got != "" {
		t.Errorf("nothing gives the role %q", got)
	}
	if got := roleOf(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{schema.AnnotationRole: "admin"}}}); got != "" {
		t.Errorf("a Pod has the role %q", got)
	}
}

func account(name, role string) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
	}
	if role != "" {
		a.Annotations = map[string]string{schema.AnnotationRole: role}
	}
	return a
}

func inNameOf(name, account string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{ServiceAccountName: account, DeprecatedServiceAccount: account, Containers: []corev1.Container{{Name: "main", Image: "busybox"}}},
	}
}

// A token is what its pod, its node and its account are, at the moment of asking.
func TestATokenIsGoodWhileItsPodIs(t *testing.T) {
	r := newLoopRig(t)
	who := accounts{r.views}
	if _, err := who.Account(satoken.Bound{Namespace: "default", Pod: "one", Node: "n1"}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("before the views are whole: %v", err)
	}
	r.serve()
	r.until("the views are whole", r.views.whole)
	r.node("n1")
	r.push("c1", account("robot", "view"), inNameOf("one", "robot"), inNameOf("two", ""))
	r.until("the pods are assigned", func() bool { return len(r.assigned()) == 2 })
	pods := r.assigned()
	bound := func(pod, account string, change ...func(*satoken.Bound)) satoken.Bound {
		b := satoken.Bound{
			Namespace: "default", Account: account, Pod: pod, PodUID: pods[pod].UID, Node: "n1",
			AccountUID: schema.UIDOf(schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: "default", Name: account}),
		}
		for _, f := range change {
			f(&b)
		}
		return b
	}
	if role, err := who.Account(bound("one", "robot")); err != nil || role != access.View {
		t.Errorf("%q, %v", role, err)
	}
	if role, err := who.Account(bound("two", "default")); err != nil || role != "" {
		t.Errorf("default, which nobody declared: %q, %v", role, err)
	}
	for name, b := range map[string]satoken.Bound{
		"an earlier pod of the name": bound("one", "robot", func(b *satoken.Bound) { b.PodUID = "before" }),
		"another node":               bound("one", "robot", func(b *satoken.Bound) { b.Node = "n2" }),
		"another namespace":          bound("one", "robot", func(b *satoken.Bound) { b.Namespace = "kube-system" }),
		"another account":            bound("two", "robot"),
		"another account's uid":      bound("one", "robot", func(b *satoken.Bound) { b.AccountUID = "before" }),
		"a pod that is not there":    bound("three", "robot"),
	} {
		if role, err := who.Account(b); !errors.Is(err, schema.ErrNotFound) || role != "" {
			t.Errorf("%s: %q, %v", name, role, err)
		}
	}

	r.push("c2", account("robot", ""), inNameOf("one", "robot"), inNameOf("two", ""))
	r.until("the role is taken away", func() bool {
		role, err := who.Account(bound("one", "robot"))
		return err == nil && role == ""
	})
	r.push("c3", inNameOf("one", "robot"), inNameOf("two", ""))
	r.until("the account goes, and its tokens", func() bool {
		_, err := who.Account(bound("one", "robot"))
		return errors.Is(err, schema.ErrNotFound)
	})
	r.push("c4", account("robot", ""), inNameOf("one", "robot"))
	r.until("a pod that is to end is still one", func() bool { return r.assigned()["two"].DeletionTimestamp != nil })
	if _, err := who.Account(bound("two", "default")); err != nil {
		t.Errorf("while it ends: %v", err)
	}
	r.report(schema.PodReport{Node: "n1", Pod: r.assigned()["two"], Gone: true})
	r.until("the pod is gone, and its token", func() bool {
		_, err := who.Account(bound("two", "default"))
		return errors.Is(err, schema.ErrNotFound)
	})
}

// What the gateway hands out the door takes.
func TestTokensOfTheGatewayOpenTheDoor(t *testing.T) {
	door, err := access.Open(access.Options{DataDir: t.TempDir(), TLS: access.TLSOptions{Listen: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	r := newLoopRig(t)
	r.serve()
	r.until("the views are whole", r.views.whole)
	r.node("n1")
	r.push("c1", account("robot", "admin"), inNameOf("one", "robot"))
	r.until("the pod is assigned", func() bool { return len(r.assigned()) == 1 })
	var o gateway.Options
	if err := giveTokens(&o, door, r.views); err != nil {
		t.Fatal(err)
	}
	pod := r.assigned()["one"]
	uid := schema.UIDOf(schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: "default", Name: "robot"})
	token, err := o.IssueToken(gateway.TokenOrder{Node: "n1", Pod: &pod, AccountUID: uid, Life: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	user, _, err := door.ReviewToken(token.Token, nil)
	if err != nil || user.Name != "system:serviceaccount:default:robot" || user.Role != access.Admin {
		t.Errorf("%+v, %v", user, err)
	}
	if len(o.RootCA) == 0 {
		t.Error("there is nothing that vouches for the door")
	}
}
