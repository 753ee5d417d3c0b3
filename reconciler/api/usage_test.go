package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// measured opens a front door over a small cluster of which two pods and the node
// are measured.
func measured(t *testing.T) *door {
	told := &schema.NodeUsage{
		Node: "n1", Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Window: 15*time.Second + 123456*time.Microsecond,
		Usage: schema.Usage{CPU: 1234567890, Memory: 2 << 30},
	}
	d := newDoor(t, func(o *Options) {
		o.Usage = func(n schema.NodeName) *schema.NodeUsage {
			if n != "n1" {
				return nil
			}
			return told
		}
	}).furnish()
	for _, key := range [][2]string{{"default", "talk"}, {"default", "web-7-a"}} {
		p := podFixture(key[0], key[1], map[string]string{"app": key[1][:3]})
		p.Spec.NodeName = "n1"
		d.put(p)
		told.Pods = append(told.Pods, schema.PodUsage{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Containers: []schema.ContainerUsage{
			{Name: "main", Usage: schema.Usage{CPU: 5000000, Memory: 3 << 20}}, {Name: "side", Window: 4 * time.Second, Usage: schema.Usage{CPU: 0, Memory: 1000}},
		}})
	}
	told.Pods[1].UID += "-before" // another pod had the name
	return d
}

func TestUsage(t *testing.T) {
	d := measured(t)
	const base = "/apis/metrics.k8s.io/v1beta1"
	var p podMetrics
	d.ask("GET", base+"/namespaces/default/pods/talk", "", "Accept: application/vnd.kubernetes.protobuf, */*").decode(t, &p)
	if p.Kind != "PodMetrics" || p.APIVersion != "metrics.k8s.io/v1beta1" || p.Metadata.Name != "talk" || p.Metadata.Labels["app"] != "tal" ||
		p.Window.Duration != 4*time.Second || len(p.Containers) != 2 || p.Containers[0].Usage.Cpu().String() != "5m" || p.Containers[0].Usage.Memory().String() != "3Mi" {
		t.Errorf("%+v", p)
	}
	var n nodeMetrics
	a := d.ask("GET", base+"/nodes/n1", "")
	a.decode(t, &n)
	if n.Kind != "NodeMetrics" || n.Usage.Cpu().String() != "1234567890n" || !strings.Contains(a.text, `"window":"15.123s"`) {
		t.Error(a.text)
	}
	for path, want := range map[string]string{
		"/pods":                                         "talk",
		"/namespaces/default/pods":                      "talk",
		"/namespaces/kube-system/pods":                  "",
		"/pods?labelSelector=app%3Dtal":                 "talk",
		"/pods?labelSelector=app%3Dother":               "",
		"/pods?fieldSelector=metadata.name%3Dtalk":      "talk",
		"/pods?fieldSelector=metadata.namespace%3Dkube": "",
		"/nodes": "n1",
	} {
		var l struct {
			Kind  string
			Items []metav1.PartialObjectMetadata
		}
		a := d.ask("GET", base+path, "")
		a.decode(t, &l)
		var got []string
		for _, i := range l.Items {
			got = append(got, i.Name)
		}
		if strings.Join(got, " ") != want || !strings.HasSuffix(l.Kind, "MetricsList") || strings.Contains(a.text, `"kind":"PodMetrics"`) {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	for path, want := range map[string]string{
		"/namespaces/default/pods/web-7-a": `404 NotFound: podmetrics.metrics.k8s.io "default/web-7-a" not found`,
		"/namespaces/default/pods/nosuch":  `404 NotFound: podmetrics.metrics.k8s.io "default/nosuch" not found`,
		"/nodes/n2":                        `404 NotFound: nodemetrics.metrics.k8s.io "n2" not found`,
	} {
		if got := d.ask("GET", base+path, "").status(t); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
	for _, x := range [][2]string{{"DELETE", "/namespaces/default/pods/talk"}, {"POST", "/namespaces/default/pods"}, {"GET", "/pods?watch=true"}} {
		if a := d.ask(x[0], base+x[1], ""); a.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %s", x[0], x[1], a.text)
		}
	}
	if a := d.ask("GET", base+"/pods", "", "Authorization: Bearer view"); a.StatusCode != http.StatusOK {
		t.Errorf("a viewer: %s", a.text)
	}
}

// TestUsageIsDiscovered, and only where somebody measures.
func TestUsageIsDiscovered(t *testing.T) {
	const path = "/apis/metrics.k8s.io/v1beta1"
	if a := measured(t).ask("GET", path, ""); !strings.Contains(a.text, `"kind":"PodMetrics","verbs":["get","list"]`) {
		t.Error(a.text)
	}
	aggregated := "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	if a := measured(t).ask("GET", "/apis", "", aggregated); !strings.Contains(a.text, "NodeMetrics") {
		t.Error(a.text)
	}
	if a := newDoor(t).ask("GET", path, ""); a.StatusCode != http.StatusNotFound {
		t.Error(a.text)
	}
}
