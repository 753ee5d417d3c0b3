package blame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
)

const image = "spec.template.spec.containers[name=main].image"

func TestFieldsThatChanged(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.commit("elsewhere", map[string]string{"README.md": "x"})
	g.commit("scale to 2", map[string]string{"web.yaml": deployment("web", 2, "web:1")})
	g.commit("scale to 3", map[string]string{"web.yaml": deployment("web", 3, "web:1")})
	g.commit("web 2", map[string]string{"web.yaml": "# a comment moves everything\n" + deployment("web", 3, "web:2", "        command: [a, b]\n")})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at web.yaml:1",
		"changed: web 2 at web.yaml:2",
		"spec.replicas (web.yaml:6) 2 -> 3: scale to 3 at web.yaml:5",
		image+" (web.yaml:13) web:1 -> web:2: web 2 at web.yaml:13",
		`spec.template.spec.containers[name=main].command (web.yaml:14) none -> ["a","b"]: web 2 at web.yaml:14`,
	)
}

// What is as it was in the first version has no line, and what is gone has one.
func TestFieldsThereAndBack(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1", "        stdin: true\n")})
	g.commit("up", map[string]string{"web.yaml": deployment("web", 9, "web:1", "        stdin: true\n        tty: true\n")})
	g.commit("down", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at web.yaml:1",
		"changed: down at web.yaml:1",
		"spec.template.spec.containers[name=main].stdin () true -> none: down at web.yaml",
	)
}

func TestNothingChanged(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.commit("reindent", map[string]string{"web.yaml": "---\n# why\n" + strings.ReplaceAll(deployment("web", 1, `"web:1"`), "replicas: 1", "replicas:   1")})
	g.deploy()
	want(t, g.ask(web), "created: begin at web.yaml:1", "changed: begin at web.yaml:1")
}

func TestFileRenamed(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"a/web.yaml": deployment("web", 1, "web:1")})
	g.commit("scale", map[string]string{"a/web.yaml": deployment("web", 2, "web:1")})
	g.commit("rename", map[string]string{"a/web.yaml": "-", "b/shop.yaml": deployment("web", 2, "web:1")})
	g.commit("rename and change", map[string]string{"b/shop.yaml": "-", "c.yaml": deployment("web", 2, "web:2")})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at a/web.yaml:1",
		"changed: rename and change at c.yaml:1",
		"spec.replicas (c.yaml:5) 1 -> 2: scale at a/web.yaml:5",
		image+" (c.yaml:12) web:1 -> web:2: rename and change at c.yaml:12",
	)
}

// An object moves out of a file that stays, into one that was there.
func TestObjectMoved(t *testing.T) {
	g := newRig(t)
	both := deployment("db", 1, "db:1") + "---\n" + deployment("web", 1, "web:1")
	g.commit("begin", map[string]string{"all.yaml": both, "other.yaml": deployment("other", 1, "o:1")})
	g.commit("scale", map[string]string{"all.yaml": strings.Replace(both, "replicas: 1", "replicas: 4", 2)})
	g.commit("move", map[string]string{
		"all.yaml": deployment("db", 4, "db:1"), "other.yaml": deployment("other", 1, "o:1") + "---\n" + deployment("web", 4, "web:1"),
	})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at all.yaml:14",
		"changed: scale at all.yaml:14",
		"spec.replicas (other.yaml:18) 1 -> 4: scale at all.yaml:18",
	)
}

func TestDeletedAndMadeAgain(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.commit("scale", map[string]string{"web.yaml": deployment("web", 5, "web:1")})
	g.commit("delete", map[string]string{"web.yaml": "-"})
	g.commit("again", map[string]string{"web.yaml": deployment("web", 2, "web:1")})
	g.commit("new image", map[string]string{"web.yaml": deployment("web", 2, "web:2")})
	g.deploy()
	want(t, g.ask(web),
		"created: again at web.yaml:1",
		"changed: new image at web.yaml:1",
		image+" (web.yaml:12) web:1 -> web:2: new image at web.yaml:12",
	)
}

// Items that Kubernetes merges by name are the same in another order.
func TestItemsReordered(t *testing.T) {
	container := func(name, image string) string { return "  - {name: " + name + ", image: " + image + "}\n" }
	pod := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n"
	g := newRig(t)
	g.commit("begin", map[string]string{"p.yaml": pod + container("a", "x:1") + container("b", "x:1")})
	g.commit("turn", map[string]string{"p.yaml": pod + container("b", "x:1") + container("a", "x:1")})
	g.commit("new b", map[string]string{"p.yaml": pod + container("b", "x:2") + container("a", "x:1")})
	g.commit("and c first", map[string]string{"p.yaml": pod + container("c", "x:3") + container("b", "x:2") + container("a", "x:1")})
	g.deploy()
	want(t, g.ask(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "p"}),
		"created: begin at p.yaml:1",
		"changed: and c first at p.yaml:1",
		"spec.containers[name=c].name (p.yaml:6) none -> c: and c first at p.yaml:6",
		"spec.containers[name=c].image (p.yaml:6) none -> x:3: and c first at p.yaml:6",
		"spec.containers[name=b].image (p.yaml:7) x:1 -> x:2: new b at p.yaml:6",
	)
}

// A push may bring a commit that could not have been deployed.
func TestBrokenCommitBetween(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.commit("break", map[string]string{"web.yaml": "<<<<<<< HEAD\n\ta: [\n"})
	g.commit("mend", map[string]string{"web.yaml": deployment("web", 2, "web:1")})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at web.yaml:1",
		"changed: break at web.yaml:1",
		"spec.replicas (web.yaml:5) 1 -> 2: break at web.yaml:5",
	)
}

func TestMergesAndSubfolder(t *testing.T) {
	g := newRig(t)
	g.path = "clusters/one"
	g.commit("begin", map[string]string{"clusters/one/web.yaml": deployment("web", 1, "web:1")})
	g.git("checkout", "-q", "-b", "side")
	g.commit("on the side", map[string]string{"clusters/one/web.yaml": deployment("web", 2, "web:1")})
	g.git("checkout", "-q", "main")
	g.commit("elsewhere", map[string]string{"clusters/two/web.yaml": deployment("web", 7, "web:7")})
	g.git("merge", "-q", "--no-ff", "-m", "merge the side", "side")
	g.deploy()
	want(t, g.ask(web),
		"created: begin at web.yaml:1",
		"changed: merge the side at web.yaml:1",
		"spec.replicas (web.yaml:5) 1 -> 2: merge the side at web.yaml:5",
	)
}

func TestSecretsAreNotShown(t *testing.T) {
	secret := func(data, annotation, kind string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: {copy: " + annotation + "}\n  labels: {a: " + kind + "}\nstringData:\n  password: " + data + "\n"
	}
	g := newRig(t)
	g.commit("begin", map[string]string{"s.yaml": secret("hunter2", "hunter2", "x")})
	g.commit("rotate", map[string]string{"s.yaml": secret("hunter3", "hunter3", "z") + "  other: hunter4\n"})
	g.deploy()
	k := schema.ObjectKey{Kind: schema.Secrets, Namespace: "default", Name: "s"}
	b, err := g.blamer(nil).Blame(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(b); strings.Contains(string(text), "hunter") {
		t.Errorf("%s", text)
	}
	want(t, tell(b),
		"created: begin at s.yaml:1",
		"changed: rotate at s.yaml:1",
		"metadata.annotations.copy (s.yaml:5) (secret) -> (secret): rotate at s.yaml:5",
		"metadata.labels.a (s.yaml:6) x -> z: rotate at s.yaml:6",
		"stringData.password (s.yaml:8) (secret) -> (secret): rotate at s.yaml:8",
		"stringData.other (s.yaml:9) none -> (secret): rotate at s.yaml:9",
	)
}

func TestObjectsMadeByCUE(t *testing.T) {
	text := func(replicas int) string {
		return fmt.Sprintf("web: #Deployment & {\n\tapiVersion: \"apps/v1\"\n\tkind: \"Deployment\"\n\tmetadata: name: \"web\"\n\tspec: {\n\t\treplicas: %d\n\t\tselector: matchLabels: app: \"web\"\n\t\ttemplate: {metadata: labels: app: \"web\", spec: containers: [{name: \"main\", image: \"web:1\"}]}\n\t}\n}\n", replicas)
	}
	g := newRig(t)
	g.commit("begin", map[string]string{"web.cue": text(1)})
	g.commit("scale", map[string]string{"web.cue": text(2)})
	g.commit("rename", map[string]string{"web.cue": "-", "shop.cue": text(2)})
	g.deploy()
	want(t, g.ask(web),
		"created: begin at web.cue",
		"changed: rename at shop.cue",
		"The object is made by CUE, so only the commits of its file are known.",
	)
}

// What the planner made is followed to what stands in Git.
func TestOwners(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.deploy()
	owned := func(kind schema.Kind, name, ownerVersion, ownerKind, owner string) schema.ObjectKey {
		info, _ := schema.LookupKind(kind)
		o := info.New()
		o.SetNamespace("default")
		o.SetName(name)
		o.SetAnnotations(g.objects[web].GetAnnotations())
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: ownerVersion, Kind: ownerKind, Name: owner, Controller: ptr.To(true)}})
		k := schema.KeyOf(o)
		g.objects[k] = o
		return k
	}
	set := owned(schema.ReplicaSets, "web-1", "apps/v1", "Deployment", "web")
	pod := owned(schema.Pods, "web-1-x", "apps/v1", "ReplicaSet", "web-1")
	b, err := g.blamer(nil).Blame(t.Context(), pod)
	if err != nil || b.Asked != "pods/default/web-1-x" || b.Object != "deployments/default/web" || fmt.Sprint(b.Owners) != "[replicasets/default/web-1 deployments/default/web]" || b.Created == nil {
		t.Errorf("%+v %v", b, err)
	}
	delete(g.objects, set)
	if _, err := g.blamer(nil).Blame(t.Context(), pod); err == nil || !strings.Contains(err.Error(), "which is not there any more") {
		t.Errorf("%v", err)
	}
	ring := owned(schema.ReplicaSets, "ring", "apps/v1", "ReplicaSet", "ring")
	if _, err := g.blamer(nil).Blame(t.Context(), ring); err == nil {
		t.Error("a ring of owners has no end")
	}
}

func TestBounds(t *testing.T) {
	g := newRig(t)
	for i := range 6 {
		g.commit(fmt.Sprint("scale ", i), map[string]string{"web.yaml": deployment("web", i, "web:1")})
	}
	g.deploy()
	b, err := g.blamer(func(o *Options) { o.Most = 3 }).Blame(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	want(t, tell(b),
		"changed: scale 5 at web.yaml:1",
		"spec.replicas (web.yaml:5) 4 -> 5: scale 5 at web.yaml:5",
		"Only the last 3 commits were looked at, or older ones are not in the repository: older changes are not shown.",
	)
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := g.blamer(nil).Blame(late, web); err == nil {
		t.Error("answered after the deadline")
	}
}

func TestHTTP(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.deploy()
	node := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	g.objects[schema.KeyOf(node)] = node
	lost := g.objects[web].DeepCopyObject().(schema.Object)
	lost.SetName("lost")
	lost.SetAnnotations(map[string]string{schema.AnnotationRevision: strings.Repeat("1", 40), schema.AnnotationSource: "web.yaml:1"})
	g.objects[schema.KeyOf(lost)] = lost
	may := func(_ *http.Request, k schema.ObjectKey) error {
		if k.Kind == schema.Secrets {
			return apierrors.NewForbidden(corev1.Resource("secrets"), k.Name, errors.New("not for you"))
		}
		return nil
	}
	b := g.blamer(func(o *Options) { o.May = may })
	for _, c := range []struct {
		method, query string
		code          int
		message       string
	}{
		{"GET", "kind=deployments&namespace=default&name=web", 200, ""},
		{"GET", "kind=deployments&name=web", 200, ""},
		{"POST", "kind=deployments&name=web", 405, "post is not supported on resources of kind \"blame.pawl.dev\""},
		{"GET", "kind=widgets&name=web", 400, `kind "widgets" is not known; it is a lower-case plural, such as deployments`},
		{"GET", "kind=deployments", 400, "name is needed"},
		{"GET", "kind=deployments&name=none", 404, `deployments "none" not found`},
		{"GET", "kind=nodes&name=n1", 404, "nodes/n1 does not stand in the repository: no commit made it"},
		{"GET", "kind=deployments&name=lost", 404, "the repository does not hold what the object came from: commit 1111111111111111111111111111111111111111: object 1111111111111111111111111111111111111111: not found"},
		{"GET", "kind=secrets&name=s", 403, `secrets "s" is forbidden: not for you`},
	} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(c.method, schema.BlamePath+"?"+c.query, nil))
		var answer struct {
			metav1.TypeMeta
			Message string
		}
		err := json.Unmarshal(w.Body.Bytes(), &answer)
		kind := "Status"
		if c.code == 200 {
			kind = "Blame"
		}
		if err != nil || w.Code != c.code || answer.Message != c.message || answer.Kind != kind {
			t.Errorf("%s %s: %d %s", c.method, c.query, w.Code, w.Body)
		}
	}
}

func TestShorten(t *testing.T) {
	for value, want := range map[string]string{
		`3`: "3", `"web:1"`: "web:1", `"3"`: `"3"`, `"true"`: `"true"`, `""`: `""`, `" a"`: `" a"`, `"a\nb"`: `"a\nb"`, `["a","b"]`: `["a","b"]`,
		`"` + strings.Repeat("ä", 60) + `"`: strings.Repeat("ä", 47) + "…",
	} {
		if got := shorten(value); got != want {
			t.Errorf("%s: %s, want %s", value, got, want)
		}
	}
}

// The mirror of a remote repository holds the past as well.
func TestRemoteMirror(t *testing.T) {
	g := newRig(t)
	g.commit("begin", map[string]string{"web.yaml": deployment("web", 1, "web:1")})
	g.commit("scale", map[string]string{"web.yaml": deployment("web", 2, "web:1")})
	g.deploy()
	dir := filepath.Join(t.TempDir(), "mirror.git")
	remote, err := gitsource.NewRemote(gitsource.RemoteOptions{URL: g.dir, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := remote.Run(ctx, func(schema.Commit) { cancel() }); err != nil {
		t.Fatal(err)
	}
	b, err := g.blamer(func(o *Options) { o.Dir = dir }).Blame(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	want(t, tell(b),
		"created: begin at web.yaml:1",
		"changed: scale at web.yaml:1",
		"spec.replicas (web.yaml:5) 1 -> 2: scale at web.yaml:5",
	)
}

// BenchmarkBlame asks about an object that each of 1,000 commits changed, in a
// file with 50 others.
func BenchmarkBlame(b *testing.B) {
	g := newRig(b)
	var others strings.Builder
	for i := range 50 {
		others.WriteString(deployment(fmt.Sprint("other-", i), 1, "x:1") + "---\n")
	}
	for i := range 1000 {
		g.commit("next", map[string]string{"all.yaml": others.String() + deployment("web", i, "web:1")})
	}
	g.git("repack", "-a", "-d", "-q")
	g.deploy()
	blamer := g.blamer(func(o *Options) { o.Most = 2000; o.Timeout = time.Minute })
	b.ReportAllocs()
	for b.Loop() {
		if answer, err := blamer.Blame(b.Context(), web); err != nil || answer.Note != "" {
			b.Fatal(answer, err)
		}
	}
}
