package kv

import (
	"fmt"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// The store's map. Keys that change together live in one bucket; nobody builds
// a key outside this file.
//
//	bucket            key                         value                        only writer
//	pawl-desired      <kind>.<namespace>.<name>   object as validated          the leading reconciler
//	pawl-assignments  <node>.<namespace>.<pod>    schema.Assignment            the leading reconciler
//	pawl-actual       pods.<namespace>.<name>     schema.PodReport             the gateway, in the words of the pod's node;
//	                                                                           the reconciler deletes it once Gone
//	pawl-actual       nodes._.<name>              corev1.Node                  the gateway, in the words of the node
//	pawl-actual       <kind>.<namespace>.<name>   ReplicaSets made by the      the leading reconciler
//	                                              planner, and the status of
//	                                              desired objects (object with
//	                                              metadata and status, no spec)
//	pawl-actual       revisions._.<commit>        schema.RevisionRecord        the leading reconciler; the last 100
//	pawl-leases       <what>.<name>               lease; memory, per-key TTL   the gateway (node.<node>), the leader
//	pawl-leases       usage.<node>                schema.NodeUsage; as above   the gateway, in the words of the node
//	pawl-events       pawl.events.<ns>.<kind>.<name>.<event>  corev1.Event (a stream), the newest count of each;
//	                                                          the reconciler, and the gateway in the words of a node

// A Bucket names one KV bucket.
type Bucket string

// The buckets, and the stream of events.
const (
	Desired     Bucket = "pawl-desired"
	Assignments Bucket = "pawl-assignments"
	Actuals     Bucket = "pawl-actual"
	Leases      Bucket = "pawl-leases"

	EventStream = "pawl-events"
)

// Revisions is the kind token under which pawl-actual keeps RevisionRecords.
const Revisions = schema.Revisions

// clusterScope stands in keys for the namespace of cluster-scoped objects. No
// namespace encodes to it, since names do not begin with a dot.
const clusterScope = "_"

// ObjectKey is the key of an object in pawl-desired and pawl-actual.
func ObjectKey(k schema.ObjectKey) string {
	ns := clusterScope
	if k.Namespace != "" {
		ns = encodeName(k.Namespace)
	}
	return string(k.Kind) + "." + ns + "." + encodeName(k.Name)
}

// ParseObjectKey undoes ObjectKey. The error wraps schema.ErrRefused.
func ParseObjectKey(key string) (schema.ObjectKey, error) {
	t := strings.Split(key, ".")
	if len(t) != 3 || t[0] == "" || t[1] == "" || t[2] == "" {
		return schema.ObjectKey{}, fmt.Errorf("key %q: want <kind>.<namespace>.<name>: %w", key, schema.ErrRefused)
	}
	k := schema.ObjectKey{Kind: schema.Kind(t[0])}
	var err error
	if t[1] != clusterScope {
		if k.Namespace, err = decodeName(t[1]); err != nil {
			return schema.ObjectKey{}, fmt.Errorf("key %q: %w", key, err)
		}
	}
	if k.Name, err = decodeName(t[2]); err != nil {
		return schema.ObjectKey{}, fmt.Errorf("key %q: %w", key, err)
	}
	return k, nil
}

// AssignmentKey is the key of an assignment in pawl-assignments.
func AssignmentKey(n schema.NodeName, p schema.PodKey) string {
	return string(n) + "." + encodeName(p.Namespace) + "." + encodeName(p.Name)
}

// ParseAssignmentKey undoes AssignmentKey. The error wraps schema.ErrRefused.
func ParseAssignmentKey(key string) (schema.NodeName, schema.PodKey, error) {
	t := strings.Split(key, ".")
	if len(t) != 3 {
		return "", schema.PodKey{}, fmt.Errorf("key %q: want <node>.<namespace>.<pod>: %w", key, schema.ErrRefused)
	}
	n := schema.NodeName(t[0])
	if err := n.Validate(); err != nil {
		return "", schema.PodKey{}, fmt.Errorf("key %q: %w", key, err)
	}
	ns, err := decodeName(t[1])
	if err != nil {
		return "", schema.PodKey{}, fmt.Errorf("key %q: %w", key, err)
	}
	name, err := decodeName(t[2])
	if err != nil {
		return "", schema.PodKey{}, fmt.Errorf("key %q: %w", key, err)
	}
	return n, schema.PodKey{Namespace: ns, Name: name}, nil
}

// NodeLeaseKey is the key of a node's lease in pawl-leases.
func NodeLeaseKey(n schema.NodeName) string { return "node." + string(n) }

// UsageKey is the key in pawl-leases of what a node takes.
func UsageKey(n schema.NodeName) string { return "usage." + string(n) }

// LeaderLeaseKey is the key of the reconciler's leader lease in pawl-leases.
const LeaderLeaseKey = "leader.reconciler"

// EventSubject is the subject in EventStream of one Event about one object.
// What stands in the Event's name after the object's is its last token.
func EventSubject(k schema.ObjectKey, event string) string {
	ns := clusterScope
	if k.Namespace != "" {
		ns = encodeName(k.Namespace)
	}
	last := event[strings.LastIndexByte(event, '.')+1:]
	if last == "" {
		last = "unnamed"
	}
	return "pawl.events." + ns + "." + string(k.Kind) + "." + encodeName(k.Name) + "." + encodeName(last)
}

// encodeName makes one key token of a name, one-to-one: a dot is written '_',
// and '_' itself or a byte that NATS KV keys cannot hold as =HH.
func encodeName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '.':
			b.WriteByte('_')
		case c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// decodeName undoes encodeName and accepts nothing that encodeName does not write.
func decodeName(token string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(token); i++ {
		switch c := token[i]; c {
		case '_':
			b.WriteByte('.')
		case '=':
			var v byte
			if i+2 >= len(token) {
				return "", fmt.Errorf("token %q: cut short after '=': %w", token, schema.ErrRefused)
			}
			if _, err := fmt.Sscanf(token[i+1:i+3], "%02X", &v); err != nil {
				return "", fmt.Errorf("token %q: '=' wants two hex digits: %w", token, schema.ErrRefused)
			}
			b.WriteByte(v)
			i += 2
		default:
			b.WriteByte(c)
		}
	}
	if name := b.String(); name == "" || encodeName(name) != token {
		return "", fmt.Errorf("token %q: not a name as keys write it: %w", token, schema.ErrRefused)
	}
	return b.String(), nil
}
