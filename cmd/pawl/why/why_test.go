package why_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/cmd/pawl/why"
	"github.com/pawl-project/pawl/schema"
)

var update = flag.Bool("update", false, "write what is said into the scenarios")

// TestStories runs every scenario: a world as YAML, a question, and the answer.
// The clock stands at noon.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			story, said, ok := strings.Cut(string(text), "-- says --\n")
			title, world, ok2 := strings.Cut(story, "-- world --\n")
			lines := strings.Split(strings.TrimSpace(title), "\n")
			question, ok3 := strings.CutPrefix(lines[len(lines)-1], "why ")
			if !ok || !ok2 || !ok3 {
				t.Fatal("a scenario is: words, a line `why Kind namespace/name`, -- world --, YAML, -- says --, the answer")
			}
			w, objects := read(t, world)
			s := subject(question)
			if o, ok := objects[question]; ok {
				s.Object = o
			}
			var b strings.Builder
			why.Explain(w, s, noon).Print(&b, noon)
			if *update {
				if err := os.WriteFile(file, []byte(story+"-- says --\n"+b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if b.String() != said {
				t.Errorf("it says\n%swant\n%s", b.String(), said)
			}
		})
	}
}

// subject reads "Deployment default/web" and "Node n1".
func subject(question string) why.Subject {
	kind, name, _ := strings.Cut(question, " ")
	s := why.Subject{Kind: kind, Name: name}
	if namespace, inner, ok := strings.Cut(name, "/"); ok {
		s.Namespace, s.Name = namespace, inner
	}
	return s
}

// read makes a world of YAML documents, and an index of its objects as questions name them.
func read(t *testing.T, text string) (why.World, map[string]metav1.Object) {
	t.Helper()
	var w why.World
	objects := map[string]metav1.Object{}
	for _, doc := range strings.Split(text, "---\n") {
		var head metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		keep := func(o metav1.Object) {
			if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
				t.Fatalf("%v in\n%s", err, doc)
			}
			s := why.Subject{Kind: head.Kind, Namespace: o.GetNamespace(), Name: o.GetName()}
			objects[s.String()] = o
		}
		switch head.Kind {
		case "":
			var r schema.RevisionRecord
			if err := yaml.UnmarshalStrict([]byte(doc), &r); err != nil {
				t.Fatalf("%v in\n%s", err, doc)
			}
			if r.Commit != "" {
				w.Revisions = append(w.Revisions, r)
			}
		case "Deployment":
			o := new(appsv1.Deployment)
			keep(o)
			w.Deployments = append(w.Deployments, *o)
		case "ReplicaSet":
			o := new(appsv1.ReplicaSet)
			keep(o)
			w.ReplicaSets = append(w.ReplicaSets, *o)
		case "ReplicationController":
			o := new(corev1.ReplicationController)
			keep(o)
			w.Controllers = append(w.Controllers, *o)
		case "Pod":
			o := new(corev1.Pod)
			keep(o)
			w.Pods = append(w.Pods, *o)
		case "Node":
			o := new(corev1.Node)
			keep(o)
			w.Nodes = append(w.Nodes, *o)
		case "Event":
			o := new(corev1.Event)
			keep(o)
			w.Events = append(w.Events, *o)
		default:
			o := new(corev1.ConfigMap)
			keep(o)
		}
	}
	return w, objects
}
