package schema

import (
	"fmt"
	"regexp"
)

// A NodeName is one lower-case DNS label (RFC 1123, at most 63 characters),
// such as "rack3-n07". It has no dots, because it is one token of a store key
// and of a NATS subject, and a dot would let one node read another's.
type NodeName string

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Validate says why n cannot name a node; nil when it can.
func (n NodeName) Validate() error {
	if !dnsLabel.MatchString(string(n)) {
		return fmt.Errorf("node name %q: must be one DNS label of lower-case letters, digits and '-', at most 63 characters: %w", string(n), ErrRefused)
	}
	return nil
}

// A PodKey names a pod within the cluster.
type PodKey struct {
	Namespace string
	Name      string
}

// String is the form people read: namespace/name.
func (k PodKey) String() string { return k.Namespace + "/" + k.Name }

// An ObjectKey names an object of any kind within the cluster. Namespace is
// empty for cluster-scoped kinds.
type ObjectKey struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String is the form people read: kind/namespace/name, or kind/name.
func (k ObjectKey) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + "/" + k.Name
	}
	return string(k.Kind) + "/" + k.Namespace + "/" + k.Name
}

// Less orders keys by kind, namespace, name: the order of every list Pawl prints.
func (k ObjectKey) Less(o ObjectKey) bool {
	if k.Kind != o.Kind {
		return k.Kind < o.Kind
	}
	if k.Namespace != o.Namespace {
		return k.Namespace < o.Namespace
	}
	return k.Name < o.Name
}
