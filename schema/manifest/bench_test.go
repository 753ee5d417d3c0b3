package manifest

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/pawl-project/pawl/schema"
)

func withoutSource(o runtime.Object) runtime.Object {
	if object, ok := o.(schema.Object); ok {
		annotations := copyMap(object.GetAnnotations())
		delete(annotations, schema.AnnotationSource)
		if len(annotations) == 0 {
			annotations = nil
		}
		object.SetAnnotations(annotations)
	}
	return o
}

const benchDeployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-%d
  labels: {app: web}
spec:
  replicas: 3
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: nginx:1.7.9
        ports:
        - name: http
          containerPort: 80
        env:
        - {name: GREETING, value: hello}
        - name: PASSWORD
          valueFrom: {secretKeyRef: {name: web, key: password}}
        resources:
          requests: {cpu: 100m, memory: 64Mi}
          limits: {cpu: "1", memory: 128Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
        volumeMounts:
        - {name: data, mountPath: /data}
      volumes:
      - name: data
        emptyDir: {}
`

func BenchmarkDeploymentCold(b *testing.B) {
	text := []byte(fmt.Sprintf(benchDeployment, 1))
	compileText("web.yaml", text)
	b.ReportAllocs()
	for b.Loop() {
		if r := compileText("web.yaml", text); len(r.faults) > 0 {
			b.Fatal(r.faults)
		}
	}
}

func BenchmarkDeploymentCached(b *testing.B) {
	tree := MemTree(map[string]string{"web.yaml": fmt.Sprintf(benchDeployment, 1)})
	c := NewCompiler(Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Compile(context.Background(), tree); err != nil {
			b.Fatal(err)
		}
	}
}

// What CUE's own evaluator takes for the same document.
func BenchmarkDeploymentByCUE(b *testing.B) {
	documents := parseYAML("web.yaml", []byte(fmt.Sprintf(benchDeployment, 1)), &faultList{})
	judge := &cueJudge{}
	for b.Loop() {
		if err := judge.verdict(b, "Deployment", documents[0].root); err != nil {
			b.Fatal(err)
		}
	}
}

// A tree of 10,000 files in which one file changes each time.
func BenchmarkOneOfTenThousand(b *testing.B) {
	files := make(map[string]string, 10_000)
	for i := range 10_000 {
		files[fmt.Sprintf("team-%d/web-%d.yaml", i%100, i)] = fmt.Sprintf(benchDeployment, i)
	}
	c := NewCompiler(Options{})
	if _, err := c.Compile(context.Background(), MemTree(files)); err != nil {
		b.Fatal(err)
	}
	trees := make([]schema.Tree, 16)
	for i := range trees {
		files["team-7/web-7.yaml"] = fmt.Sprintf(benchDeployment, 7) + fmt.Sprintf("# change %d\n", i)
		trees[i] = MemTree(files)
	}
	b.ResetTimer()
	n := 0
	for b.Loop() {
		// A commit not seen before, as a push brings it.
		c.files.drop(c.files.entries[cacheKey{"team-7/web-7.yaml", lastBlob(c, trees[n%16])}])
		if _, err := c.Compile(context.Background(), trees[n%16]); err != nil {
			b.Fatal(err)
		}
		n++
	}
}

// lastBlob makes sure that the changed file of the tree is in the cache and names it.
func lastBlob(c *Compiler, tree schema.Tree) string {
	for _, f := range tree.Files() {
		if f.Path == "team-7/web-7.yaml" {
			if c.files.get(f.Path, f.Blob) == nil {
				c.files.put(f.Path, f.Blob, &fileResult{}, f.Size)
			}
			return f.Blob
		}
	}
	return ""
}

func BenchmarkTenThousandCold(b *testing.B) {
	files := make(map[string]string, 10_000)
	for i := range 10_000 {
		files[fmt.Sprintf("team-%d/web-%d.yaml", i%100, i)] = fmt.Sprintf(benchDeployment, i)
	}
	tree := MemTree(files)
	for b.Loop() {
		if _, err := NewCompiler(Options{}).Compile(context.Background(), tree); err != nil {
			b.Fatal(err)
		}
	}
}
