package manifest

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pawl-project/pawl/schema"
)

// maxAnnotations is what the annotations of one object may weigh together, in bytes.
const maxAnnotations = 256 << 10

// rules checks what the definitions cannot say: what spans several fields. It
// runs on the defaulted object.
func (o *objectReader) rules(object schema.Object) {
	o.metadataRules(object)
	switch x := object.(type) {
	case *corev1.Pod:
		o.podRules(&x.Spec, "spec")
	case *corev1.ReplicationController:
		if x.Spec.Template != nil {
			o.controllerRules(x)
		}
	case *appsv1.ReplicaSet:
		o.selectorRules(x.Spec.Selector, x.Spec.Template.Labels, "spec.selector")
		o.templateRules(&x.Spec.Template)
	case *appsv1.Deployment:
		o.selectorRules(x.Spec.Selector, x.Spec.Template.Labels, "spec.selector")
		o.deploymentRules(x)
		o.templateRules(&x.Spec.Template)
	case *corev1.ConfigMap:
		o.configMapRules(x)
	case *corev1.Secret:
		o.secretRules(x)
	case *corev1.Service:
		o.serviceRules(x)
	case *corev1.ServiceAccount:
		o.accountRules(x)
	case *schedulingv1.PriorityClass:
		o.priorityClassRules(x)
	}
}

// metadataRules bounds annotations, and takes away those that Pawl writes: an
// object exported from a cluster carries them.
func (o *objectReader) metadataRules(object schema.Object) {
	size := 0
	for k, v := range object.GetAnnotations() {
		size += len(k) + len(v)
	}
	if size > maxAnnotations {
		o.fault("metadata.annotations", fmt.Sprintf("have %d bytes together, the limit is %d", size, maxAnnotations), "")
	}
	for _, key := range []string{schema.AnnotationRevision, schema.AnnotationSource, schema.AnnotationAuthor} {
		if _, there := object.GetAnnotations()[key]; !there {
			continue
		}
		path := fieldPath("metadata.annotations", key)
		o.warn(o.root.find(path), path, "is left out: Pawl writes it", "")
		kept := copyMap(object.GetAnnotations())
		delete(kept, key)
		object.SetAnnotations(kept)
	}
}

// selectorRules wants a selector that selects something, and the template of
// all things.
func (o *objectReader) selectorRules(s *metav1.LabelSelector, template map[string]string, path string) {
	if s == nil {
		return
	}
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		o.fault(path, "is empty, which would select every pod", "select the labels of the template")
		return
	}
	for i, r := range s.MatchExpressions {
		at := indexPath(path+".matchExpressions", i)
		needs := r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn
		if needs != (len(r.Values) > 0) {
			problem := "must have values with operator " + string(r.Operator)
			if !needs {
				problem = "must have no values with operator " + string(r.Operator)
			}
			o.fault(at, problem, "")
			return
		}
	}
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		o.fault(path, "cannot be read: "+err.Error(), "")
		return
	}
	if !selector.Matches(labels.Set(template)) {
		o.fault(path, "does not match the labels of the template", remedyForSelector(s.MatchLabels, template))
	}
}

func remedyForSelector(wanted, template map[string]string) string {
	for _, k := range sortedKeys(wanted) {
		if template[k] != wanted[k] {
			return fmt.Sprintf("give spec.template.metadata.labels %s: %s", k, quote(wanted[k]))
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (o *objectReader) controllerRules(x *corev1.ReplicationController) {
	if len(x.Spec.Selector) == 0 {
		o.fault("spec.selector", "is empty, which would select every pod", "give the template labels")
	} else if !labels.SelectorFromSet(x.Spec.Selector).Matches(labels.Set(x.Spec.Template.Labels)) {
		o.fault("spec.selector", "does not match the labels of the template", remedyForSelector(x.Spec.Selector, x.Spec.Template.Labels))
	}
	o.templateRules(x.Spec.Template)
}

func (o *objectReader) templateRules(t *corev1.PodTemplateSpec) {
	if t.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		o.fault("spec.template.spec.restartPolicy", fmt.Sprintf("must be Always in a %s, is %s", o.info.GVK.Kind, t.Spec.RestartPolicy), "a Pod of its own may have another")
	}
	if t.Spec.ActiveDeadlineSeconds != nil {
		o.fault("spec.template.spec.activeDeadlineSeconds", "must not be there in a "+o.info.GVK.Kind, "a Pod of its own may have it")
	}
	o.podRules(&t.Spec, "spec.template.spec")
}

func (o *objectReader) deploymentRules(x *appsv1.Deployment) {
	s := &x.Spec
	if *s.ProgressDeadlineSeconds <= s.MinReadySeconds {
		o.fault("spec.progressDeadlineSeconds", fmt.Sprintf("must be more than minReadySeconds, which is %d", s.MinReadySeconds), "")
	}
	rolling := s.Strategy.RollingUpdate
	if s.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		if rolling != nil {
			o.fault("spec.strategy.rollingUpdate", "must not be there with type Recreate", "remove it, or write type: RollingUpdate")
		}
		return
	}
	const full = 100
	unavailable, err := intstr.GetScaledValueFromIntOrPercent(rolling.MaxUnavailable, full, true)
	if err != nil {
		o.fault("spec.strategy.rollingUpdate.maxUnavailable", "cannot be read: "+err.Error(), "")
		return
	}
	surge, err := intstr.GetScaledValueFromIntOrPercent(rolling.MaxSurge, full, true)
	if err != nil {
		o.fault("spec.strategy.rollingUpdate.maxSurge", "cannot be read: "+err.Error(), "")
		return
	}
	if rolling.MaxUnavailable.Type == intstr.String && unavailable > full {
		o.fault("spec.strategy.rollingUpdate.maxUnavailable", "must not be more than 100%", "")
	}
	if unavailable == 0 && surge == 0 {
		o.fault("spec.strategy.rollingUpdate.maxUnavailable", "must not be 0 when maxSurge is 0: no pod could be replaced", "")
	}
}

// twice finds names that stand more than once and says so at the later place.
type twice struct {
	o    *objectReader
	what string
	seen map[string]string // name → path
}

func (t *twice) check(name, path string) {
	if name == "" {
		return
	}
	if t.seen == nil {
		t.seen = map[string]string{}
	}
	if first, there := t.seen[name]; there {
		t.o.fault(path, fmt.Sprintf("%s %s stands twice, first at %s", t.what, quote(name), first), "names are unique here")
		return
	}
	t.seen[name] = strings.TrimSuffix(path, ".name")
}
