package plan

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestDesireWritesOnlyWhatChanged(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	stored := map[schema.ObjectKey]schema.Object{}
	commit := func(id string, objects ...schema.Object) Desired {
		d := Desire(schema.Revision{Commit: schema.Commit{ID: id, Author: "Ann", Email: "a@example.org"}, Objects: objects}, stored, nil, now)
		for _, o := range d.Put {
			stored[schema.KeyOf(o)] = storedObject(t, o)
		}
		for _, k := range d.Delete {
			delete(stored, k)
		}
		return d
	}
	web, one := deployment("web", 2, "web:1"), barePod("one", "one:1")
	d := commit("c1", web, one)
	if len(d.Put) != 2 || len(d.Created) != 2 || len(d.Changed)+len(d.Delete) != 0 {
		t.Fatalf("first commit: %+v", d)
	}
	k := schema.KeyOf(web)
	o := stored[k]
	if o.GetUID() != schema.UIDOf(k) || o.GetGeneration() != 1 || !o.GetCreationTimestamp().Time.Equal(now) ||
		o.GetAnnotations()[schema.AnnotationRevision] != "c1" || o.GetAnnotations()[schema.AnnotationAuthor] != "Ann <a@example.org>" ||
		o.GetAnnotations()[schema.AnnotationSource] != "web.yaml:1" {
		t.Errorf("stored as %+v", o)
	}
	if web.UID != "" || web.Annotations[schema.AnnotationRevision] != "" {
		t.Error("the revision's own object was changed")
	}

	moved := web.DeepCopy()
	moved.Annotations[schema.AnnotationSource] = "web.yaml:17"
	if d := commit("c2", moved, one); len(d.Put)+len(d.Delete) != 0 {
		t.Errorf("a line that moved writes %+v", d)
	}

	now = now.Add(time.Hour)
	labelled := moved.DeepCopy()
	labelled.Labels = map[string]string{"tier": "front"}
	d = commit("c3", labelled, one)
	if len(d.Put) != 1 || len(d.Changed) != 1 || d.Changed[0] != k {
		t.Fatalf("a label: %+v", d)
	}
	if o := stored[k]; o.GetGeneration() != 1 || o.GetAnnotations()[schema.AnnotationRevision] != "c3" ||
		o.GetAnnotations()[schema.AnnotationSource] != "web.yaml:17" || o.GetCreationTimestamp().Time.Equal(now) {
		t.Errorf("after a label: %+v", o)
	}

	scaled := labelled.DeepCopy()
	*scaled.Spec.Replicas = 5
	if d := commit("c4", scaled); len(d.Delete) != 1 || len(d.Removed) != 1 || d.Removed[0] != schema.KeyOf(one) {
		t.Errorf("one left: %+v", d)
	}
	if o := stored[k]; o.GetGeneration() != 2 {
		t.Errorf("generation %d after the spec changed, want 2", o.GetGeneration())
	}
}

func TestDesireAsksTheCallerAboutSecrets(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fresh := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"k": []byte("v")}}
	sealed := fresh.DeepCopy()
	sealed.Data = map[string][]byte{"k": []byte("sealed")}
	sealed.Annotations = map[string]string{schema.AnnotationRevision: "c0", "pawl.dev/sealed": "mac"}
	stored := map[schema.ObjectKey]schema.Object{schema.KeyOf(fresh): sealed}
	rev := schema.Revision{Commit: schema.Commit{ID: "c1"}, Objects: []schema.Object{fresh}}
	for _, same := range []bool{true, false} {
		d := Desire(rev, stored, func(s, f *corev1.Secret) bool {
			if s != sealed || f != fresh {
				t.Error("asked about other secrets")
			}
			return same
		}, now)
		if (len(d.Put) == 0) != same {
			t.Errorf("same=%v: puts %d", same, len(d.Put))
		}
	}
	fresh.Type = corev1.SecretTypeTLS
	if d := Desire(rev, stored, func(_, _ *corev1.Secret) bool { return true }, now); len(d.Put) != 1 {
		t.Error("another type of the same data is a change")
	}
}

// A Differ that remembers says what one that does not would say.
func TestADifferRemembersOnlyWhatIsTheSameObject(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := new(Differ)
	fresh := deployment("web", 2, "web:1")
	k := schema.KeyOf(fresh)
	stored := map[schema.ObjectKey]schema.Object{k: storedObject(t, fresh)}
	desire := func(o schema.Object) int {
		return len(f.Desire(schema.Revision{Commit: schema.Commit{ID: "c"}, Objects: []schema.Object{o}}, stored, nil, now).Put)
	}
	if n := desire(fresh) + desire(fresh); n != 0 {
		t.Errorf("puts %d equal objects", n)
	}
	changed := deployment("web", 3, "web:1")
	if first, again := desire(changed), desire(changed); first != 1 || again != 1 {
		t.Error("a change is put until it is stored")
	}
	if desire(fresh) != 0 {
		t.Error("back to what is stored")
	}
	stored[k] = storedObject(t, changed)
	if desire(fresh) != 1 || desire(changed) != 0 {
		t.Error("what is stored changed")
	}
}
