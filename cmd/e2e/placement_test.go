package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// waits says why a pod has no node, "" when it has one.
func waits(p corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Message
		}
	}
	return ""
}

// mostMemory is three fifths of the machine's.
func mostMemory(t *testing.T) string {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%dMi", uint64(info.Totalram)*uint64(info.Unit)>>20*3/5)
}

// TestPlacement has one node, with a label and a taint: pods run there whose
// affinity and tolerations fit, the others wait and say why, and a more important
// pod takes the room of a less important one.
func TestPlacement(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--node-labels", "zone=a,disk=ssd", "--node-taints", "gpu=yes:NoSchedule")
	const bears = "  tolerations: [{key: gpu, operator: Exists}]\n"
	affinity := func(value string) string {
		return bears + "  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [" + value + "]}]}]}}}\n"
	}
	away := bears + "  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {matchLabels: {side: left}}, topologyKey: zone}]}}\n"
	const sleep = "trap exit TERM; sleep 1000 & wait"
	left := strings.Replace(barePod("fits", sleep, affinity("ssd")), "  name: fits\n", "  name: fits\n  labels: {side: left}\n", 1)
	// First the one that another wants to be apart from: its wish holds both ways.
	c.push(map[string]string{"fits.yaml": left})
	c.running("fits", 1, 60*time.Second)
	c.push(map[string]string{
		"elsewhere.yaml": barePod("elsewhere", sleep, affinity("tape")),
		"apart.yaml":     barePod("apart", sleep, away), "bare.yaml": barePod("bare", sleep, ""),
	})
	c.eventually(60*time.Second, "one runs and three say why not", func() error {
		for name, want := range map[string]string{
			"fits": "", "elsewhere": "1 node(s) didn't match Pod's node affinity/selector.",
			"apart": "1 node(s) didn't match pod anti-affinity rules.", "bare": "1 node(s) had untolerated taint {gpu: yes}.",
		} {
			p := c.pods(name)[name]
			if want == "" && p.Status.Phase != corev1.PodRunning {
				return fmt.Errorf("%s is %s: %s", name, p.Status.Phase, waits(p))
			}
			if want != "" && (p.Status.Phase != corev1.PodPending || !strings.HasPrefix(waits(p), "0/1 nodes are available: "+want)) {
				return fmt.Errorf("%s is %s: %s", name, p.Status.Phase, waits(p))
			}
		}
		return nil
	})

	// Memory for one of the two only: the important one gets it.
	hungry := func(name, class string) string {
		return strings.Replace(barePod(name, sleep, bears+"  priorityClassName: "+class+"\n"), "    image:", "    resources: {requests: {memory: "+mostMemory(t)+"}}\n    image:", 1)
	}
	class := func(name, value string) string {
		return "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: " + name + "}\nvalue: " + value + "\n"
	}
	c.push(map[string]string{"classes.yaml": class("low", "10") + "---\n" + class("high", "1000"), "meek.yaml": hungry("meek", "low")})
	c.eventually(60*time.Second, "the meek one runs", func() error {
		if p := c.pods("meek")["meek"]; p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%s: %s", p.Status.Phase, waits(p))
		}
		return nil
	})
	c.push(map[string]string{"urgent.yaml": hungry("urgent", "high")})
	c.eventually(60*time.Second, "the urgent one runs in its place", func() error {
		urgent, meek := c.pods("urgent")["urgent"], c.pods("meek")["meek"]
		if urgent.Status.Phase != corev1.PodRunning || urgent.Spec.Priority == nil || *urgent.Spec.Priority != 1000 {
			return fmt.Errorf("urgent is %s: %s", urgent.Status.Phase, waits(urgent))
		}
		if want := "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."; waits(meek) != want {
			return fmt.Errorf("meek is %s: %s", meek.Status.Phase, waits(meek))
		}
		return nil
	})
}
