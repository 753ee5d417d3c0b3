package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// inPod runs a command in a pod's container, and fails the test with what it says.
func (c *cluster) inPod(pod, container, command string) string {
	c.t.Helper()
	out, err := c.pawl("exec", pod, "-c", container, "--", "sh", "-c", command)
	if err != nil {
		c.t.Errorf("in %s/%s: %s: %v", pod, container, command, err)
	}
	return strings.TrimSpace(out)
}

// reached waits until commands run in a pod's container: the node of a daemon that
// was started again may be back after its store.
func (c *cluster) reached(pod, container string) {
	c.t.Helper()
	c.eventually(30*time.Second, "commands run in "+pod, func() error {
		out, err := c.pawl("exec", pod, "-c", container, "--", "true")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// link is what a process's namespace is called.
func link(t *testing.T, of string) string {
	t.Helper()
	name, err := os.Readlink(of)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestSharedNamespaces has pods in the host's namespaces, and one whose
// containers share their processes, over the death of the agent.
func TestSharedNamespaces(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	sleep := "exec sleep 1000000"
	second := "  - name: second\n    image: busybox:1\n    command: [sh, -c, \"exec sleep 2000000\"]\n"
	c.push(map[string]string{
		"plain.yaml":   barePod("plain", sleep, ""),
		"hostpid.yaml": barePod("hostpid", sleep, "  hostPID: true"),
		"hostipc.yaml": barePod("hostipc", sleep, "  hostIPC: true"),
		"hostnet.yaml": barePod("hostnet", sleep, "  hostNetwork: true"),
		"shared.yaml":  barePod("shared", sleep, "  shareProcessNamespace: true") + second,
	})
	for _, name := range []string{"plain", "hostpid", "hostipc", "hostnet", "shared"} {
		c.running(name, 1, 60*time.Second)
	}
	for _, kind := range []string{"pid", "ipc", "net"} {
		host := link(t, "/proc/self/ns/"+kind)
		for _, pod := range []string{"plain", "hostpid", "hostipc", "hostnet", "shared"} {
			got := c.inPod(pod, "main", "readlink /proc/self/ns/"+kind)
			if want := pod == "host"+kind; (got == host) != want {
				t.Errorf("pod %s has the %s namespace %s, the host %s", pod, kind, got, host)
			}
		}
	}
	if ps := c.inPod("hostpid", "main", "ps -o args"); !strings.Contains(ps, "pawld up") {
		t.Error("hostPID does not show the daemon")
	}
	if ps := c.inPod("shared", "second", "ps -o args"); !strings.Contains(ps, "/pause") || !strings.Contains(ps, "sleep 1000000") || !strings.Contains(ps, "sleep 2000000") {
		t.Errorf("the containers of a pod do not see each other:\n%s", ps)
	}
	before := c.pods("shared")["shared"]
	c.kill()
	c.start()
	c.reached("shared", "main")
	c.inPod("shared", "main", "for p in /proc/[0-9]*; do grep -q 'sleep.20[0]0000' $p/cmdline && kill -9 ${p#/proc/}; done; true")
	c.eventually(20*time.Second, "the killed container runs again beside the other", func() error {
		p := c.pods("shared")["shared"]
		restarts := map[string]int32{}
		for _, s := range p.Status.ContainerStatuses {
			restarts[s.Name] = s.RestartCount
			if s.State.Running == nil {
				return fmt.Errorf("%s", describe(p))
			}
		}
		if restarts["main"] != 0 || restarts["second"] != 1 || p.UID != before.UID {
			return fmt.Errorf("restarts %v", restarts)
		}
		return nil
	})
	if ps := c.inPod("shared", "main", "ps -o args"); !strings.Contains(ps, "sleep 2000000") {
		t.Errorf("the container that started again is not seen:\n%s", ps)
	}
	for pod, says := range map[string]string{
		barePod("both", sleep, "  hostPID: true\n  shareProcessNamespace: true"): "ShareProcessNamespace and HostPID cannot both be enabled",
		barePod("users", sleep, "  hostUsers: false\n  hostPID: true"):           "forbidden when `hostUsers` is false",
	} {
		if out := c.pushRefused(map[string]string{"bad.yaml": pod}); !strings.Contains(out, says) {
			t.Errorf("want %q in:\n%s", says, out)
		}
	}
}

// TestHostPort publishes a port of the node: two pods that want it do not share
// a node, it outlives the agent, and goes with its pod.
func TestHostPort(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	address := freeAddress(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	web := func(name string) string {
		return strings.Replace(barePod(name, "while :; do echo "+name+" | nc -l -p 80; done", ""), "    image:", "    ports: [{containerPort: 80, hostPort: "+port+", hostIP: 127.0.0.1}]\n    image:", 1)
	}
	ask := func() string {
		d, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err.Error()
		}
		defer d.Close()
		d.SetDeadline(time.Now().Add(time.Second))
		answer := make([]byte, 10)
		n, err := d.Read(answer)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(answer[:n]))
	}
	answers := func(want string) {
		t.Helper()
		c.eventually(20*time.Second, want+" answers at the node's port", func() error {
			if got := ask(); got != want {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	c.push(map[string]string{"one.yaml": web("one")})
	answers("one")
	c.push(map[string]string{"two.yaml": web("two")})
	c.eventually(20*time.Second, "the second pod waits and says why", func() error {
		out, err := c.pawl("get", "pod", "two", "-o", "json")
		if !strings.Contains(out, "node(s) didn't have free ports for the requested pod ports") || !strings.Contains(out, `"phase": "`+string(corev1.PodPending)) {
			return fmt.Errorf("error %w:\n%s", err, out)
		}
		return nil
	})
	c.kill()
	answers("one")
	c.start()
	answers("one")
	c.push(map[string]string{"one.yaml": ""})
	answers("two")
	c.push(map[string]string{"two.yaml": ""})
	c.eventually(20*time.Second, "nobody answers any more", func() error {
		if got := ask(); !strings.Contains(got, "refused") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}
