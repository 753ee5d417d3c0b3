package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// resourcePod is a bare pod with the resources given as flow YAML.
func resourcePod(name, script, resources string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  labels: {app: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: busybox:1\n    command: [sh, -c, %q]\n    resources: %s\n", name, name, script, resources)
}

const burn = `trap 'exit 0' TERM; while :; do :; done`

// TestTop: what pods and nodes take, by both clients and by the API itself.
func TestTop(t *testing.T) {
	c := newCluster(t)
	c.push(map[string]string{
		"burn.yaml": resourcePod("burn", burn, "{limits: {cpu: 200m, memory: 64Mi}}"),
		"idle.yaml": resourcePod("idle", "trap 'exit 0' TERM; while :; do sleep 1; done", "{}") + "  - name: side\n    image: busybox:1\n    command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 1; done\"]\n",
	})
	c.running("burn", 1, 60*time.Second)
	c.running("idle", 1, 60*time.Second)

	out, err := c.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/nosuch")
	if err == nil || !strings.Contains(out, `podmetrics.metrics.k8s.io "default/nosuch" not found`) {
		t.Errorf("a pod that is not there: %v, %s", err, out)
	}
	c.eventually(45*time.Second, "the pods are measured", func() error {
		out, err := c.kubectl("top", "pod", "burn", "--no-headers")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		if m := regexp.MustCompile(`^burn +([2-9]\d|1\d\d|2[0-3]\d)m +\d+Mi *\n$`).FindString(out); m == "" {
			return fmt.Errorf("top says of a pod that is held at 200m: %q", out)
		}
		return nil
	})
	for name, client := range c.clients() {
		t.Run(name, func(t *testing.T) {
			for _, q := range []struct {
				args string
				want []string // regular expressions
			}{
				{"top pod", []string{`(?m)^NAME +CPU\(cores\) +MEMORY\(bytes\)`, `(?m)^burn +\d+m +\d+Mi`, `(?m)^idle +\d+m`}},
				{"top pods -A --no-headers", []string{`(?m)^default +burn +\d+m`}},
				{"top pod --sort-by=cpu --no-headers", []string{`(?s)^burn.*idle`}},
				{"top pod -l app=idle --no-headers", []string{`^idle +\d+m +\d+Mi *\n$`}},
				{"top pod idle --containers", []string{`(?m)^POD +NAME`, `(?m)^idle +main`, `(?m)^idle +side`}},
				{"top pod --sum", []string{`(?m)^ +_+`, `(?m)^ +\d+m +\d+Mi`}},
				{"top node", []string{`NAME +CPU\(cores\) +CPU\(?%\)? +MEMORY\(bytes\) +MEMORY\(?%\)?`, `(?m)^n1 +\d+m +\d+% +\d+Mi +\d+%`}},
				{"top node n1 --no-headers", []string{`^n1 +`}},
				{"api-resources --api-group=metrics.k8s.io", []string{`(?m)^nodes +metrics.k8s.io/v1beta1 +false +NodeMetrics`, `(?m)^pods +metrics.k8s.io/v1beta1 +true +PodMetrics`}},
				{"get podmetrics", []string{"burn"}},
			} {
				out, err := client(strings.Fields(q.args)...)
				if err != nil {
					t.Errorf("%s: %v\n%s", q.args, err, out)
				}
				for _, want := range q.want {
					if !regexp.MustCompile(want).MatchString(out) {
						t.Errorf("%s: no %s in\n%s", q.args, want, out)
					}
				}
			}
		})
	}
	c.usageInStore()

	// What has gone is not told of.
	c.push(map[string]string{"burn.yaml": ""})
	c.eventually(60*time.Second, "the pod is gone", func() error {
		if out, err := c.kubectl("top", "pod", "burn"); err == nil || !strings.Contains(out, `podmetrics.metrics.k8s.io "default/burn" not found`) {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
}

// usageInStore looks at the raw answer and at the store.
func (c *cluster) usageInStore() {
	c.t.Helper()
	raw, err := c.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/burn")
	var m struct {
		Kind, APIVersion, Window string
		Containers               []struct{ Usage map[string]string }
	}
	if err := json.Unmarshal([]byte(raw), &m); err != nil {
		c.t.Fatalf("%v: %s", err, raw)
	}
	if err != nil || m.Kind != "PodMetrics" || m.APIVersion != "metrics.k8s.io/v1beta1" || !strings.HasSuffix(m.Window, "s") || len(m.Containers) != 1 || !strings.HasSuffix(m.Containers[0].Usage["cpu"], "n") {
		c.t.Errorf("%v: %s", err, raw)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := c.store(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	all, err := kv.ReadAll(ctx, conn, kv.Leases, "usage.>", func(key string, raw []byte) (*schema.NodeUsage, error) {
		if key != kv.UsageKey("n1") {
			return nil, fmt.Errorf("key %s", key)
		}
		return kv.DecodeUsage(raw)
	})
	if err != nil || len(all) != 1 {
		c.t.Fatalf("the store has %d: %v", len(all), err)
	}
	told := all[0]
	if told.Node != "n1" || told.Memory == 0 || !slices.ContainsFunc(told.Pods, func(p schema.PodUsage) bool { return p.Name == "burn" && p.Containers[0].CPU > 1e8 }) {
		c.t.Errorf("the store has %+v", told)
	}
}
