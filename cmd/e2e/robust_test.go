package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// everything is a Deployment of n pods that have every kind of volume, probe and
// hook, an init container and a sidecar, with the objects they use.
func (c *cluster) everything(name string, n int) string {
	return strings.NewReplacer("NAME", name, "COUNT", fmt.Sprint(n), "HOST", filepath.Join(c.dir, "host")).Replace(`apiVersion: v1
kind: ConfigMap
metadata: {name: NAME}
data: {plain: "x", other: "y"}
---
apiVersion: v1
kind: Secret
metadata: {name: NAME}
stringData: {word: "geheim"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      terminationGracePeriodSeconds: 3
      volumes:
      - {name: disk, emptyDir: {sizeLimit: 10Mi}}
      - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
      - {name: host, hostPath: {path: HOST, type: DirectoryOrCreate}}
      - {name: map, configMap: {name: NAME, items: [{key: plain, path: deep/plain}]}}
      - {name: word, secret: {secretName: NAME, defaultMode: 0400}}
      - name: self
        downwardAPI:
          items:
          - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - name: all
        projected:
          sources:
          - configMap: {name: NAME}
          - secret: {name: NAME}
          - serviceAccountToken: {path: token, expirationSeconds: 600}
          - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
      initContainers:
      - name: first
        image: busybox:1
        command: [sh, -c, "mkdir -p /disk/sub /disk/$(POD) && echo hello > /disk/sub/file"]
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        volumeMounts: [{name: disk, mountPath: /disk}]
      - name: beside
        image: busybox:1
        restartPolicy: Always
        command: [sh, -c, "trap 'exit 0' TERM; sleep 1000000 & wait"]
        volumeMounts: [{name: memory, mountPath: /memory}]
      containers:
      - name: main
        image: busybox:1
        command: [sh, -c, "trap 'exit 0' TERM; httpd -p 8080 -h /disk/sub; sleep 1000000 & wait"]
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        lifecycle:
          postStart: {exec: {command: [touch, /memory/began]}}
          preStop: {exec: {command: [touch, /memory/ends]}}
        startupProbe: {exec: {command: [test, -e, /memory/began]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 60}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 10}
        readinessProbe: {httpGet: {path: /file, port: 8080}, periodSeconds: 1, timeoutSeconds: 10}
        volumeMounts:
        - {name: disk, mountPath: /disk}
        - {name: disk, mountPath: /sub, subPath: sub}
        - {name: disk, mountPath: /file, subPath: sub/file, readOnly: true}
        - {name: disk, mountPath: /mine, subPathExpr: $(POD)}
        - {name: memory, mountPath: /memory}
        - {name: host, mountPath: /host}
        - {name: map, mountPath: /map}
        - {name: map, mountPath: /plain, subPath: deep/plain}
        - {name: word, mountPath: /word}
        - {name: self, mountPath: /self}
        - {name: all, mountPath: /all, readOnly: true}
`)
}

// TestKilledDuringRounds kills pawld PAWL_KILLS times (6) at random instants
// while pods that have everything come and go: no container is started again,
// none doubled, none forgotten, and at the end nothing is left.
func TestKilledDuringRounds(t *testing.T) {
	c := newCluster(t)
	c.push(map[string]string{"steady.yaml": sleepers("steady", 2)})
	steady := c.running("steady-", 2, 60*time.Second)
	c.round(0)
	before := c.settledCounts()
	pids := c.taskPIDs()

	kills := setting(t, "PAWL_KILLS", 6)
	const width = 3
	name := ""
	for i := range kills {
		old := name
		name = fmt.Sprintf("k%d", i)
		c.write(map[string]string{"round.yaml": c.everything(name, width)}) // and those before go
		c.commit(name)
		running := c.killWhilePushing(time.Duration(rand.IntN(1500)) * time.Millisecond)
		c.running(name+"-", width, 60*time.Second)
		if old != "" {
			c.noPods(old)
		}
		if err := c.undisturbed(steady, name, width, running); err != nil {
			t.Fatalf("kill %d: %v\nthe daemon's log ends:\n%s", i+1, err, c.tail())
		}
	}
	c.push(map[string]string{"round.yaml": ""})
	c.noPods(name)
	for id, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d of %s did not live through it: %v", pid, id, err)
		}
	}
	c.asBefore(before)
}

// killWhilePushing pushes, kills the daemon after the pause and starts it again.
// It returns the processes that ran when it was killed.
func (c *cluster) killWhilePushing(pause time.Duration) map[string]int {
	c.t.Helper()
	pushed := make(chan error, 1)
	go func() {
		_, err := c.command(time.Minute, c.work, "git", "push", "-q", "origin", "HEAD:main")
		pushed <- err
	}()
	time.Sleep(pause)
	c.kill()
	<-pushed
	if c.conn != nil { // it would be cut off for as long as it seeks the next daemon
		c.conn.Close()
		c.conn = nil
	}
	running := c.taskPIDs()
	c.start()
	// A push that the crash cut off failed in the pusher's terminal: push again.
	c.git(c.work, "push", "-q", "origin", "HEAD:main")
	return running
}

// undisturbed says whether a container was started again, is there twice, or
// belongs to no pod.
func (c *cluster) undisturbed(steady map[string]corev1.Pod, name string, n int, before map[string]int) error {
	if err := sameContainers(steady, c.pods("steady-")); err != nil {
		return err
	}
	ours := map[string]bool{}
	for _, pods := range []map[string]corev1.Pod{c.pods("steady-"), c.pods(name + "-")} {
		for _, p := range pods {
			for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
				ours[strings.TrimPrefix(s.ContainerID, "containerd://")] = true
				if s.RestartCount > 0 {
					return fmt.Errorf("container %s of %s was started again: %+v", s.Name, p.Name, s.LastTerminationState)
				}
			}
		}
	}
	var faults []error
	now := c.taskPIDs()
	for id, pid := range now {
		if !ours[id] {
			faults = append(faults, fmt.Errorf("container %s belongs to no pod", id))
		}
		if was, ok := before[id]; ok && was != pid {
			faults = append(faults, fmt.Errorf("container %s has pid %d, had %d", id, pid, was))
		}
	}
	if want := len(steady) + 2*n; len(now) != want {
		faults = append(faults, fmt.Errorf("%d containers run, want %d", len(now), want))
	}
	return errors.Join(faults...)
}
