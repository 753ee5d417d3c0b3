package kv

import (
	"encoding/json"
	"fmt"

	"github.com/pawl-project/pawl/schema"
)

// Actual is what one key of pawl-actual holds: one of the three.
type Actual struct {
	Report   *schema.PodReport      // of pods
	Revision *schema.RevisionRecord // of revisions
	Object   schema.Object          // of all other kinds
}

// DecodeActual reads a value of pawl-actual.
func DecodeActual(key string, raw []byte) (Actual, error) {
	k, err := ParseObjectKey(key)
	if err != nil {
		return Actual{}, err
	}
	switch k.Kind {
	case schema.Pods:
		r := new(schema.PodReport)
		if err := decodeJSON(key, raw, r); err != nil {
			return Actual{}, err
		}
		if err := named(key, k, r.Pod.Namespace, r.Pod.Name); err != nil {
			return Actual{}, err
		}
		return Actual{Report: r}, nil
	case Revisions:
		r := new(schema.RevisionRecord)
		if err := decodeJSON(key, raw, r); err != nil {
			return Actual{}, err
		}
		return Actual{Revision: r}, nil
	default:
		o, err := decodeObject(key, k, raw)
		return Actual{Object: o}, err
	}
}

// DecodeDesired reads a value of pawl-desired.
func DecodeDesired(key string, raw []byte) (schema.Object, error) {
	k, err := ParseObjectKey(key)
	if err != nil {
		return nil, err
	}
	return decodeObject(key, k, raw)
}

// DecodeAssignment reads a value of pawl-assignments.
func DecodeAssignment(key string, raw []byte) (schema.Assignment, error) {
	node, pod, err := ParseAssignmentKey(key)
	if err != nil {
		return schema.Assignment{}, err
	}
	var a schema.Assignment
	if err := decodeJSON(key, raw, &a); err != nil {
		return schema.Assignment{}, err
	}
	if a.Node != node || a.Pod.Namespace != pod.Namespace || a.Pod.Name != pod.Name {
		return schema.Assignment{}, fmt.Errorf("key %s holds pod %s/%s of node %q: %w", key, a.Pod.Namespace, a.Pod.Name, string(a.Node), schema.ErrRefused)
	}
	return a, nil
}

func decodeObject(key string, k schema.ObjectKey, raw []byte) (schema.Object, error) {
	info, ok := schema.LookupKind(k.Kind)
	if !ok {
		return nil, fmt.Errorf("key %s: kind %q is not known: %w", key, string(k.Kind), schema.ErrRefused)
	}
	o := info.New()
	if err := decodeJSON(key, raw, o); err != nil {
		return nil, err
	}
	if gvk := o.GetObjectKind().GroupVersionKind(); gvk != info.GVK {
		return nil, fmt.Errorf("key %s holds a %s: %w", key, gvk, schema.ErrRefused)
	}
	return o, named(key, k, o.GetNamespace(), o.GetName())
}

func named(key string, k schema.ObjectKey, namespace, name string) error {
	if k.Namespace != namespace || k.Name != name {
		return fmt.Errorf("key %s holds %s/%s: %w", key, namespace, name, schema.ErrRefused)
	}
	return nil
}

func decodeJSON(key string, raw []byte, to any) error {
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("key %s: %w: %w", key, err, schema.ErrRefused)
	}
	return nil
}
