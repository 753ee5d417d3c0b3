package api

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/pawl-project/pawl/schema"
)

// A fieldOf reads one field that a selector may name.
type fieldOf func(schema.Object) string

// A fieldTable is the fields of one kind that a selector may name.
type fieldTable struct {
	fields  map[string]fieldOf
	refused func(label string) error // in Kubernetes' words, which differ
}

// of makes a reader of the Go type T.
func of[T schema.Object](read func(T) string) fieldOf {
	return func(o schema.Object) string { return read(o.(T)) }
}

func metaName(o schema.Object) string      { return o.GetName() }
func metaNamespace(o schema.Object) string { return o.GetNamespace() }

func notSupported(label string) error { return fmt.Errorf("field label not supported: %s", label) }

func notKnown(label string) error {
	return fmt.Errorf("%q is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", label)
}

// fieldsFor returns the fields of a kind: every kind has its name, and its
// namespace when it stands in one.
func fieldsFor(kind schema.Kind) fieldTable {
	t := fieldTable{fields: map[string]fieldOf{"metadata.name": metaName, "metadata.namespace": metaNamespace}, refused: notKnown}
	if info, ok := schema.LookupKind(kind); ok && !info.Namespaced {
		delete(t.fields, "metadata.namespace")
	}
	more, ok := moreFields[kind]
	if !ok {
		return t
	}
	t.refused = notSupported
	for label, read := range more {
		t.fields[label] = read
	}
	return t
}

var moreFields = map[schema.Kind]map[string]fieldOf{
	schema.Pods: {
		"spec.nodeName":            of(func(p *corev1.Pod) string { return p.Spec.NodeName }),
		"spec.restartPolicy":       of(func(p *corev1.Pod) string { return string(p.Spec.RestartPolicy) }),
		"spec.schedulerName":       of(func(p *corev1.Pod) string { return p.Spec.SchedulerName }),
		"spec.serviceAccountName":  of(func(p *corev1.Pod) string { return p.Spec.ServiceAccountName }),
		"spec.hostNetwork":         of(func(p *corev1.Pod) string { return strconv.FormatBool(p.Spec.HostNetwork) }),
		"status.phase":             of(func(p *corev1.Pod) string { return string(p.Status.Phase) }),
		"status.podIP":             of(podIP),
		"status.podIPs":            of(podIP),
		"status.nominatedNodeName": of(func(p *corev1.Pod) string { return p.Status.NominatedNodeName }),
	},
	schema.Nodes: {
		"spec.unschedulable": of(func(n *corev1.Node) string { return strconv.FormatBool(n.Spec.Unschedulable) }),
	},
	schema.Namespaces: {
		"status.phase": of(func(n *corev1.Namespace) string { return string(n.Status.Phase) }),
	},
	schema.ReplicationControllers: {
		"status.replicas": of(func(r *corev1.ReplicationController) string { return strconv.Itoa(int(r.Status.Replicas)) }),
	},
	schema.Secrets: {
		"type": of(func(s *corev1.Secret) string { return string(s.Type) }),
	},
	schema.Services: {
		"spec.clusterIP": of(func(s *corev1.Service) string { return s.Spec.ClusterIP }),
		"spec.type":      of(func(s *corev1.Service) string { return string(s.Spec.Type) }),
	},
	schema.Events: {
		"involvedObject.kind":            of(func(e *corev1.Event) string { return e.InvolvedObject.Kind }),
		"involvedObject.namespace":       of(func(e *corev1.Event) string { return e.InvolvedObject.Namespace }),
		"involvedObject.name":            of(func(e *corev1.Event) string { return e.InvolvedObject.Name }),
		"involvedObject.uid":             of(func(e *corev1.Event) string { return string(e.InvolvedObject.UID) }),
		"involvedObject.apiVersion":      of(func(e *corev1.Event) string { return e.InvolvedObject.APIVersion }),
		"involvedObject.resourceVersion": of(func(e *corev1.Event) string { return e.InvolvedObject.ResourceVersion }),
		"involvedObject.fieldPath":       of(func(e *corev1.Event) string { return e.InvolvedObject.FieldPath }),
		"reason":                         of(func(e *corev1.Event) string { return e.Reason }),
		"reportingComponent":             of(func(e *corev1.Event) string { return e.ReportingController }),
		"source":                         of(eventSource),
		"type":                           of(func(e *corev1.Event) string { return e.Type }),
	},
}

func podIP(p *corev1.Pod) string { return p.Status.PodIP }

// eventSource is who reported an event, written the old way or the new.
func eventSource(e *corev1.Event) string {
	if e.Source.Component != "" {
		return e.Source.Component
	}
	return e.ReportingController
}

// check says which field of a selector the kind does not have.
func (t fieldTable) check(s fields.Selector) error {
	for _, r := range s.Requirements() {
		if _, ok := t.fields[r.Field]; !ok {
			return t.refused(r.Field)
		}
	}
	return nil
}

// view is an object as a field selector sees it. Only asked fields are read.
type view struct {
	fields map[string]fieldOf
	object schema.Object
}

// Has implements fields.Fields.
func (v view) Has(field string) bool { _, ok := v.fields[field]; return ok }

// Get implements fields.Fields.
func (v view) Get(field string) string {
	if read, ok := v.fields[field]; ok {
		return read(v.object)
	}
	return ""
}
