package table_test

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/reconciler/api/table"
	"github.com/pawl-project/pawl/schema"
)

// BenchmarkPods makes the rows of the recorded pods; the figure is for one row.
func BenchmarkPods(b *testing.B) {
	want := read(b, "testdata/pods.json")
	var pods []*corev1.Pod
	for _, row := range want.Rows {
		p := new(corev1.Pod)
		if err := json.Unmarshal(row.Object, p); err != nil {
			b.Fatal(err)
		}
		pods = append(pods, p)
	}
	columns := table.For(schema.Pods)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		columns.Row(pods[i%len(pods)], want.Recorded)
	}
}
