package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// Desired is what an accepted revision changes in pawl-desired. An object that
// the revision does not change appears nowhere in it.
type Desired struct {
	Put    []schema.Object    // complete, to create or replace; Secrets are not sealed yet
	Delete []schema.ObjectKey // left the repository

	// For the record of the revision, sorted.
	Created, Changed, Removed []schema.ObjectKey
}

// Desire compares a revision with the stored objects. What it puts has the uid
// that follows from its name, the creationTimestamp and generation it had (the
// generation is one more when the spec or data changed), and says which commit
// and author gave it this form; the source is the compiler's. An object whose
// content did not change keeps its stored form, the source line included, which
// stays right for the commit named beside it.
//
// The data of stored Secrets is sealed: sameSecret says whether it is that of
// the Secret from the manifest; nil compares the data as it is.
func Desire(rev schema.Revision, stored map[schema.ObjectKey]schema.Object, sameSecret func(stored, fresh *corev1.Secret) bool, now time.Time) Desired {
	return new(Differ).Desire(rev, stored, sameSecret, now)
}

// A Differ is Desire with a memory: two objects that it has compared and found
// equal, and that are still the very same two in memory, are not compared again.
// So the work is proportional to what changed when the compiler and the view hand
// out the objects they handed out before. The zero Differ is ready. It is for one
// goroutine, and holds on to the objects of the last revision and what was stored.
type Differ struct {
	equal map[schema.ObjectKey]pair
}

type pair struct{ stored, fresh schema.Object }

// Desire is as the function Desire.
func (f *Differ) Desire(rev schema.Revision, stored map[schema.ObjectKey]schema.Object, sameSecret func(stored, fresh *corev1.Secret) bool, now time.Time) Desired {
	var d Desired
	named := make(map[schema.ObjectKey]bool, len(rev.Objects))
	equal := make(map[schema.ObjectKey]pair, len(rev.Objects))
	for _, fresh := range rev.Objects {
		k := schema.KeyOf(fresh)
		named[k] = true
		old, known := stored[k]
		switch {
		case !known:
			d.Put = append(d.Put, stamped(fresh, rev.Commit, 1, stamp(now)))
			d.Created = append(d.Created, k)
		case f.equal[k] == pair{old, fresh}:
			equal[k] = pair{old, fresh}
		case !sameContent(old, fresh, sameSecret):
			d.Put = append(d.Put, stamped(fresh, rev.Commit, max(old.GetGeneration(), 1)+1, old.GetCreationTimestamp()))
			d.Changed = append(d.Changed, k)
		case !sameMetadata(old, fresh):
			d.Put = append(d.Put, stamped(fresh, rev.Commit, max(old.GetGeneration(), 1), old.GetCreationTimestamp()))
			d.Changed = append(d.Changed, k)
		default:
			equal[k] = pair{old, fresh}
		}
	}
	f.equal = equal
	for k := range stored {
		if !named[k] {
			d.Delete = append(d.Delete, k)
		}
	}
	sortKeys(d.Delete)
	sortKeys(d.Created)
	sortKeys(d.Changed)
	d.Removed = d.Delete
	return d
}

// stamped is a copy of an object as it will be stored.
func stamped(fresh schema.Object, c schema.Commit, generation int64, created metav1.Time) schema.Object {
	o := fresh.DeepCopyObject().(schema.Object)
	o.SetUID(schema.UIDOf(schema.KeyOf(o)))
	o.SetGeneration(generation)
	o.SetCreationTimestamp(created)
	a := maps.Clone(o.GetAnnotations())
	if a == nil {
		a = map[string]string{}
	}
	a[schema.AnnotationRevision] = c.ID
	a[schema.AnnotationAuthor] = c.Author
	if c.Email != "" {
		a[schema.AnnotationAuthor] = strings.TrimSpace(c.Author + " <" + c.Email + ">")
	}
	o.SetAnnotations(a)
	return o
}

// sameContent compares what a generation counts: all but the metadata.
func sameContent(old, fresh schema.Object, sameSecret func(stored, fresh *corev1.Secret) bool) bool {
	a, isSecret := old.(*corev1.Secret)
	b, ok := fresh.(*corev1.Secret)
	if isSecret && ok && sameSecret != nil {
		return a.Type == b.Type && equality.Semantic.DeepEqual(a.Immutable, b.Immutable) && sameSecret(a, b)
	}
	return equality.Semantic.DeepEqual(content(old), content(fresh))
}

// content is all of an object but its metadata and status.
func content(o schema.Object) any {
	switch o := o.(type) {
	case *corev1.Pod:
		return &o.Spec
	case *corev1.ReplicationController:
		return &o.Spec
	case *appsv1.ReplicaSet:
		return &o.Spec
	case *appsv1.Deployment:
		return &o.Spec
	case *corev1.Service:
		return &o.Spec
	case *corev1.Namespace:
		return &o.Spec
	case *corev1.ConfigMap:
		c := *o
		c.ObjectMeta = metav1.ObjectMeta{}
		return &c
	case *corev1.Secret:
		c := *o
		c.ObjectMeta = metav1.ObjectMeta{}
		return &c
	default:
		c := o.DeepCopyObject()
		if m, ok := c.(metav1.ObjectMetaAccessor); ok {
			if meta, ok := m.GetObjectMeta().(*metav1.ObjectMeta); ok {
				*meta = metav1.ObjectMeta{}
			}
		}
		return c
	}
}

// sameMetadata compares the labels and annotations that people write.
func sameMetadata(old, fresh schema.Object) bool {
	if !maps.Equal(old.GetLabels(), fresh.GetLabels()) {
		return false
	}
	a, b := maps.Clone(old.GetAnnotations()), maps.Clone(fresh.GetAnnotations())
	_, secret := old.(*corev1.Secret)
	for k := range a {
		// What the sealing left on a stored Secret is in no manifest.
		if _, written := b[k]; secret && !written && strings.HasPrefix(k, "pawl.dev/") {
			delete(a, k)
		}
	}
	for _, k := range traces {
		delete(a, k)
		delete(b, k)
	}
	return maps.Equal(a, b)
}

func sortKeys(keys []schema.ObjectKey) {
	slices.SortFunc(keys, func(a, b schema.ObjectKey) int {
		switch {
		case a.Less(b):
			return -1
		case b.Less(a):
			return 1
		default:
			return 0
		}
	})
}
