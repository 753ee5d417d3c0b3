package api

import (
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// refusal is the answer to a write that is Git's: one line that says where.
func (q *request) refusal() error {
	return q.refuse(q.t.name)
}

// refuse says of an object, which need not be there, where it is changed.
func (q *request) refuse(name string) error {
	line := q.whereChanged(name)
	err := statusError(http.StatusMethodNotAllowed, reasonMethod, line)
	err.ErrStatus.Details = &metav1.StatusDetails{Group: q.res.gvk.Group, Kind: q.res.plural(), Name: name}
	return err
}

func (q *request) whereChanged(name string) string {
	if !q.res.manifest {
		return q.notChanged(name)
	}
	there := fmt.Sprintf("%s (branch %s)", q.Repository, q.Branch)
	if name == "" {
		return fmt.Sprintf("%s are changed in Git only: edit the files in %s and push", q.res.groupResource(), there)
	}
	item, ok := q.Cache.Get(objectKey(q.res.kind, q.t.namespace, name))
	if !ok {
		return fmt.Sprintf("%s %q is added in Git only: add a file with it to %s and push", q.res.groupResource(), name, there)
	}
	source := item.Object().GetAnnotations()[schema.AnnotationSource]
	if source == "" {
		return q.nobodyWrote(name, there)
	}
	return fmt.Sprintf("%s %q is changed in Git only: edit %s in %s and push", q.res.groupResource(), name, source, there)
}

// nobodyWrote says of an object that stands in no file why it is there, and what
// would change it.
func (q *request) nobodyWrote(name, there string) string {
	what := fmt.Sprintf("%s %q", q.res.groupResource(), name)
	deletes := q.verb == "delete"
	switch {
	case q.res.kind == schema.Namespaces && name == metav1.NamespaceDefault && deletes:
		return what + " cannot be deleted: every cluster has it"
	case q.res.kind == schema.Namespaces && deletes:
		return fmt.Sprintf("%s is there because objects are in it: it ends when those are removed from %s", what, there)
	case deletes:
		return what + " cannot be deleted: it stands in no file, the cluster made it"
	}
	return fmt.Sprintf("%s stands in no file: add one with it to %s and push", what, there)
}

// notChanged says of a kind that no file holds why it is not changed.
func (q *request) notChanged(name string) string {
	what := q.res.groupResource().String()
	if name != "" {
		what += fmt.Sprintf(" %q", name)
	}
	return what + " cannot be changed: it is what the cluster says of itself"
}

// warn adds a warning to the answer, as Kubernetes sends them.
func warn(w http.ResponseWriter, text string) {
	if header, err := warningHeader(text); err == nil {
		w.Header().Add("Warning", header)
	}
}

// bareWarning says of a pod that it comes back; "" when somebody else makes it
// again, as everybody expects.
func (q *request) bareWarning(i *cache.Item) string {
	o := i.Object()
	source := o.GetAnnotations()[schema.AnnotationSource]
	if metav1.GetControllerOf(o) != nil || source == "" {
		return ""
	}
	return fmt.Sprintf("pod %s stands in Git (%s): it is made again; remove it there to end it", o.GetName(), source)
}

func warningHeader(text string) (string, error) { return utilnet.NewWarningHeader(299, "-", text) }
