package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// sleepers is a Deployment of n small pods that end at once on TERM, once their
// shell has come to the trap; a TERM before that is lost on a namespace's first
// process, and the grace period is short for those.
func sleepers(name string, n int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %s
spec:
  replicas: %d
  selector:
    matchLabels: {app: %s}
  template:
    metadata:
      labels: {app: %s}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
      - name: main
        image: busybox:1
        command: [sh, -c, "trap 'exit 0' TERM; sleep 1000000 & wait"]
`, name, n, name, name)
}

// sameContainers says how the pods differ from what they were: a container that
// was made again has another id and another pid.
func sameContainers(before, after map[string]corev1.Pod) error {
	if len(after) != len(before) {
		return fmt.Errorf("%d pods, want %d", len(after), len(before))
	}
	for name, p := range before {
		q, ok := after[name]
		if !ok {
			return fmt.Errorf("pod %s is gone", name)
		}
		if p.UID != q.UID || q.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID || q.Status.ContainerStatuses[0].RestartCount != p.Status.ContainerStatuses[0].RestartCount {
			return fmt.Errorf("pod %s was made again", name)
		}
	}
	return nil
}

// TestKilledDaemon kills pawld at random instants of pushes, scale changes and
// stops. After each new start the cluster reaches what Git says, and containers
// that Git says nothing new of keep their processes.
func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"steady.yaml": sleepers("steady", 3)})
	steady := c.running("steady-", 3, 60*time.Second)
	pids := c.taskPIDs()

	for round := range 12 {
		replicas := 1 + round%5
		c.write(map[string]string{"churn.yaml": sleepers("churn", replicas)})
		c.commit(fmt.Sprintf("round %d", round))
		pushed := make(chan error, 1)
		go func() {
			_, err := c.command(time.Minute, c.work, "git", "push", "-q", "origin", "HEAD:main")
			pushed <- err
		}()
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
		c.kill()
		<-pushed
		c.start()
		// A push that the crash cut off failed in the pusher's terminal: push again.
		c.git(c.work, "push", "-q", "origin", "HEAD:main")
		c.running("churn-", replicas, 60*time.Second)
		if err := sameContainers(steady, c.pods("steady-")); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	for id, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d of %s did not live through it: %v", pid, id, err)
		}
	}
}

// TestKilledContainerd kills containerd: containers keep their processes, and
// the next push is carried out by the one that is started in its place.
func TestKilledContainerd(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"a.yaml": sleepers("a", 3)})
	before := c.running("a-", 3, 60*time.Second)
	pids := c.taskPIDs()

	if err := syscall.Kill(c.containerdPID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.push(map[string]string{"b.yaml": sleepers("b", 2)})
	c.running("b-", 2, 60*time.Second)
	if err := sameContainers(before, c.running("a-", 3, 30*time.Second)); err != nil {
		t.Error(err)
	}
	now := c.taskPIDs()
	for id, pid := range pids {
		if now[id] != pid {
			t.Errorf("container %s has pid %d, had %d", id, now[id], pid)
		}
	}
}

// TestLostStore wipes JetStream's directory under 20 running pods: the store is
// rebuilt from Git and from what the node says, and no container restarts.
func TestLostStore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"a.yaml": sleepers("a", 20)})
	before := c.running("a-", 20, 120*time.Second)
	pids := c.taskPIDs()

	c.kill()
	if err := os.RemoveAll(filepath.Join(c.data, "nats")); err != nil {
		t.Fatal(err)
	}
	c.start()
	if err := sameContainers(before, c.running("a-", 20, 60*time.Second)); err != nil {
		t.Error(err)
	}
	// The rebuilt store is obeyed: a change works as before.
	c.push(map[string]string{"a.yaml": sleepers("a", 5)})
	left := c.running("a-", 5, 60*time.Second)
	for name := range left {
		if _, ok := before[name]; !ok {
			t.Errorf("pod %s is new", name)
		}
	}
	now := c.taskPIDs()
	for id, pid := range now {
		if pids[id] != pid {
			t.Errorf("container %s has pid %d, had %d", id, pid, pids[id])
		}
	}
}

// ctr is containerd's own client, for looking from outside.
func (c *cluster) ctr(args ...string) (string, error) {
	return c.command(30*time.Second, "", "ctr", append([]string{"--address", filepath.Join(c.run, "containerd", "containerd.sock"), "-n", "pawl"}, args...)...)
}

// taskPIDs is the process of every container, by container id.
func (c *cluster) taskPIDs() map[string]int {
	c.t.Helper()
	out, err := c.ctr("tasks", "ls")
	if err != nil {
		c.t.Fatalf("ctr: %v\n%s", err, out)
	}
	pids := map[string]int{}
	for _, line := range strings.Split(out, "\n")[1:] {
		if f := strings.Fields(line); len(f) == 3 && f[2] == "RUNNING" {
			pid, err := strconv.Atoi(f[1])
			if err != nil {
				c.t.Fatal(err)
			}
			pids[f[0]] = pid
		}
	}
	return pids
}

// containerdPID finds the instance's containerd by its own socket.
func (c *cluster) containerdPID() int {
	c.t.Helper()
	pid, err := c.findContainerd()
	if err != nil {
		c.t.Fatal(err)
	}
	return pid
}

func (c *cluster) findContainerd() (int, error) {
	pids, err := processes(filepath.Join(c.run, "containerd") + "/")
	if err != nil {
		return 0, err
	}
	for pid, line := range pids {
		if regexp.MustCompile(`^\S*containerd\s`).MatchString(line) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no containerd among %v", pids)
}

// processes finds the processes whose command line holds a text.
func processes(text string) (map[int]string, error) {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if line := strings.ReplaceAll(string(raw), "\x00", " "); strings.Contains(line, text) {
			found[pid] = line
		}
	}
	return found, nil
}
