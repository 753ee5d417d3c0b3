package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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
		out, err = c.kubectl("top", "pod", "idle", "--containers", "--no-headers")
		if err != nil || strings.Count(out, "\n") != 2 {
			return fmt.Errorf("top says of a pod of two containers: %w: %q", err, out)
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
			return fmt.Errorf("error %w: %s", err, out)
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
	if told.Node != "n1" || told.Memory == 0 || !slices.ContainsFunc(told.Pods, func(p schema.PodUsage) bool { return p.Name == "burn" && p.Containers[0].CPU > 1e7 }) {
		c.t.Errorf("the store has %+v", told)
	}
}

// TestEviction: a pod that has more on the node's disk than it may is taken down
// in Kubernetes' words. One of a Deployment is replaced, a bare one stays as it is.
func TestEviction(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const wait = "trap 'exit 0' TERM; while :; do sleep 1; done"
	fill := func(file string) string { return "dd if=/dev/zero of=" + file + " bs=1M count=4; " + wait }
	emptyDir := strings.Replace(resourcePod("volume", fill("/cache/x"), "{}"), "  containers:", "  volumes: [{name: cache, emptyDir: {sizeLimit: 2Mi}}]\n  containers:", 1) +
		"    volumeMounts: [{name: cache, mountPath: /cache}]\n"
	two := resourcePod("two", fill("/x"), "{limits: {ephemeral-storage: 8Mi}}") +
		fmt.Sprintf("  - name: other\n    image: busybox:1\n    command: [sh, -c, %q]\n    resources: {limits: {ephemeral-storage: 2Mi}}\n", fill("/x"))
	c.push(map[string]string{
		"layer.yaml":  resourcePod("layer", fill("/x"), "{limits: {ephemeral-storage: 2Mi}}"),
		"volume.yaml": emptyDir,
		"two.yaml":    two,
		"within.yaml": resourcePod("within", fill("/x"), "{limits: {ephemeral-storage: 64Mi}}"),
		"web.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: busybox:1\n        command: [sh, -c, " +
			fmt.Sprintf("%q", "sleep 3; "+fill("/x")) + "]\n        resources: {limits: {ephemeral-storage: 2Mi}}\n",
	})
	for name, want := range map[string]string{
		"layer":  "Failed Evicted Pod ephemeral local storage usage exceeds the total limit of containers 2Mi.",
		"volume": `Failed Evicted Usage of EmptyDir volume "cache" exceeds the limit "2Mi".`,
		"two":    `Failed Evicted Container other exceeded its local ephemeral storage limit "2Mi".`,
	} {
		c.eventually(90*time.Second, name+" is evicted", func() error {
			out, err := c.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase} {.status.reason} {.status.message}")
			if err != nil || out != want {
				return fmt.Errorf("error %w: %s", err, out)
			}
			return nil
		})
	}
	if out, err := c.pawl("describe", "pod", "layer"); err != nil || !regexp.MustCompile(`(?m)^Reason: +Evicted$`).MatchString(out) {
		t.Errorf("describe pod: %v\n%s", err, out)
	}
	c.eventually(30*time.Second, "an Event says so", func() error { // it comes beside the status
		out, err := c.kubectl("events", "--for", "pod/layer")
		if err != nil || !regexp.MustCompile(`Warning +Evicted +Pod/layer +Pod ephemeral local storage usage`).MatchString(out) {
			return fmt.Errorf("error %w:\n%s", err, out)
		}
		return nil
	})
	// What an evicted pod had is off the disk.
	uid, err := c.kubectl("get", "pod", "volume", "-o", "jsonpath={.metadata.uid}")
	if err != nil {
		t.Fatal(err, uid)
	}
	c.eventually(30*time.Second, "the volume is gone", func() error {
		for _, dir := range []string{filepath.Join(c.data, "volumes", uid), filepath.Join(c.run, "pods", uid)} {
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				return fmt.Errorf("%s is there: %w", dir, err)
			}
		}
		return nil
	})
	// A pod of a Deployment is made anew, again and again.
	c.eventually(90*time.Second, "the deployment's pod is replaced", func() error {
		out, err := c.kubectl("get", "events", "--field-selector", "reason=Evicted", "-o", "jsonpath={.items[*].involvedObject.name}")
		if err != nil || !strings.Contains(out, "web-") {
			return fmt.Errorf("error %w: %s", err, out)
		}
		names, err := c.kubectl("get", "pods", "-l", "app=web", "--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")
		if err != nil || names == "" || strings.Contains(out, names) {
			return fmt.Errorf("error %w: evicted %s, there is %q", err, out, names)
		}
		return nil
	})
	// The bare pods stay what they are, also when the agent is killed.
	c.kill()
	c.start()
	c.push(map[string]string{"after.yaml": sleepers("after", 1)})
	c.running("after-", 1, 60*time.Second) // by now both halves have looked at what there is
	for _, name := range []string{"layer", "volume", "two"} {
		if out, err := c.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase} {.status.reason}"); err != nil || out != "Failed Evicted" {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	if out, err := c.kubectl("get", "pod", "within", "-o", "jsonpath={.status.phase}"); err != nil || out != "Running" {
		t.Errorf("a pod within its limit: %v: %s", err, out)
	}
}
