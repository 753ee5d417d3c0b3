package reconciler

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/access/satoken"
	"github.com/pawl-project/pawl/reconciler/gateway"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// accounts knows by the views which pods and service accounts there are. It is
// access.Accounts.
type accounts struct{ views views }

// Account implements access.Accounts: a token is good while its pod is assigned
// to the node that it was given to, and its account is what it was.
func (a accounts) Account(b satoken.Bound) (access.Role, error) {
	if !a.views.desired.Whole() || !a.views.assignments.Whole() {
		return "", fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)
	}
	key := kv.AssignmentKey(b.Node, b.PodKey())
	pod, ok := a.views.assignments.Get(key)
	if !ok && (pod.Revision != 0 || a.views.assignments.Lost(key)) {
		return "", fmt.Errorf("the assignment of pod %s cannot be read: %w", b.PodKey(), schema.ErrUnavailable)
	}
	if !ok || pod.Value.Pod.UID != b.PodUID || schema.AccountOf(&pod.Value.Pod.Spec) != b.Account {
		return "", fmt.Errorf("pod %s with uid %s: %w", b.PodKey(), b.PodUID, schema.ErrNotFound)
	}
	return a.role(b)
}

// role is what the manifest of a service account gives it. "default" exists
// without one, and may do nothing then.
func (a accounts) role(b satoken.Bound) (access.Role, error) {
	k := schema.ObjectKey{Kind: schema.ServiceAccounts, Namespace: b.Namespace, Name: b.Account}
	if schema.UIDOf(k) != b.AccountUID {
		return "", fmt.Errorf("service account %s/%s with uid %s: %w", b.Namespace, b.Account, b.AccountUID, schema.ErrNotFound)
	}
	e, ok := a.views.desired.Get(kv.ObjectKey(k))
	switch {
	case !ok && b.Account == schema.DefaultAccount:
		return "", nil
	case !ok && a.views.desired.Lost(kv.ObjectKey(k)):
		return "", fmt.Errorf("service account %s/%s cannot be read: %w", b.Namespace, b.Account, schema.ErrUnavailable)
	case !ok:
		return "", fmt.Errorf("service account %s/%s: %w", b.Namespace, b.Account, schema.ErrNotFound)
	}
	return roleOf(e.Value), nil
}

// roleOf is the role that an object's annotation names; "" when it names none.
func roleOf(o schema.Object) access.Role {
	account, ok := o.(*corev1.ServiceAccount)
	if !ok {
		return ""
	}
	role, err := access.ParseRole(account.Annotations[schema.AnnotationRole])
	if err != nil {
		return ""
	}
	return role
}

// giveTokens has the gateway give out tokens, and the door take them.
func giveTokens(o *gateway.Options, door *access.Access, v views) error {
	root, err := door.RootCA()
	if err != nil {
		return fmt.Errorf("read what vouches for the API: %w", err)
	}
	door.Trust(accounts{v})
	o.RootCA = root
	o.IssueToken = func(t gateway.TokenOrder) (schema.Token, error) {
		return door.IssueToken(satoken.Bound{
			Namespace: t.Pod.Namespace, Account: schema.AccountOf(&t.Pod.Spec), AccountUID: t.AccountUID,
			Pod: t.Pod.Name, PodUID: t.Pod.UID, Node: t.Node,
		}, t.Audience, t.Life)
	}
	return nil
}
