package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// barePod is a Pod of one busybox container that runs a shell script.
func barePod(name, script, more string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata:
  name: %s
spec:
  terminationGracePeriodSeconds: 2
%s
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, %q]
`, name, more, script)
}

// TestSelfHeal kills a container behind the agent's back: it runs again in the
// same pod, first at once.
func TestSelfHeal(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"a.yaml": sleepers("a", 2)})
	before := c.running("a-", 2, 60*time.Second)
	var victim corev1.Pod
	for _, p := range before {
		victim = p
	}
	id := strings.TrimPrefix(victim.Status.ContainerStatuses[0].ContainerID, "containerd://")
	if out, err := c.ctr("tasks", "kill", "-s", "KILL", id); err != nil {
		t.Fatalf("ctr: %v\n%s", err, out)
	}
	c.eventually(40*time.Second, "the container runs again", func() error {
		p := c.pods(victim.Name)[victim.Name]
		if len(p.Status.ContainerStatuses) != 1 {
			return fmt.Errorf("%d container statuses", len(p.Status.ContainerStatuses))
		}
		s := p.Status.ContainerStatuses[0]
		if s.RestartCount != 1 || s.State.Running == nil {
			return fmt.Errorf("%d restarts, %s", s.RestartCount, describe(p))
		}
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != 137 {
			return fmt.Errorf("last state %v, want exit code 137", last)
		} else if pause := s.State.Running.StartedAt.Sub(last.FinishedAt.Time); pause >= 9*time.Second {
			return fmt.Errorf("it was started again after %s, and a back-off has 10s", pause)
		}
		if p.UID != victim.UID || p.Status.PodIP != victim.Status.PodIP {
			return fmt.Errorf("the pod was replaced")
		}
		return nil
	})
}

// TestEndings runs pods that end in every way and reads phase, reason and exit code.
func TestEndings(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	memory := `  restartPolicy: Never`
	hungry := strings.Replace(barePod("oom", "head -c 200m /dev/zero | tail", memory), "    image:", "    resources: {limits: {memory: 16Mi}}\n    image:", 1)
	c.push(map[string]string{
		"done.yaml":  barePod("done", "exit 0", "  restartPolicy: Never"),
		"fails.yaml": barePod("fails", "exit 3", "  restartPolicy: Never"),
		"loops.yaml": barePod("loops", "exit 4", "  restartPolicy: Always"),
		"oom.yaml":   hungry,
		"gone.yaml":  strings.Replace(barePod("gone", "true", ""), "busybox:1", "no-such-image:1", 1),
		"never.yaml": strings.Replace(barePod("never", "true", ""), "    image: busybox:1", "    image: not-here:1\n    imagePullPolicy: Never", 1),
		"cmd.yaml":   strings.Replace(barePod("cmd", "true", "  restartPolicy: Never"), "command: [sh, ", "command: [/no/such/program, ", 1),
	})
	terminated := func(name string) func() string {
		return func() string {
			p := c.pods(name)[name]
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Terminated == nil {
				return describe(p)
			}
			s := p.Status.ContainerStatuses[0].State.Terminated
			return fmt.Sprintf("%s %s %d", p.Status.Phase, s.Reason, s.ExitCode)
		}
	}
	waiting := func(name string) func() string {
		return func() string {
			p := c.pods(name)[name]
			if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
				return describe(p)
			}
			return fmt.Sprintf("%s %s", p.Status.Phase, p.Status.ContainerStatuses[0].State.Waiting.Reason)
		}
	}
	for _, e := range []struct {
		want string
		is   func() string
	}{
		{"Succeeded Completed 0", terminated("done")},
		{"Failed Error 3", terminated("fails")},
		{"Running CrashLoopBackOff", waiting("loops")},
		{"Failed OOMKilled 137", terminated("oom")},
		{"Pending ImagePullBackOff", waiting("gone")},
		{"Pending ErrImageNeverPull", waiting("never")},
		{"Failed StartError 128", terminated("cmd")},
	} {
		c.eventually(40*time.Second, e.want, func() error {
			if is := e.is(); is != e.want {
				return fmt.Errorf("%s", is)
			}
			return nil
		})
	}
}

// TestConfig starts a pod that reads a ConfigMap and a Secret from its
// environment and from files, and checks the log it writes; nothing of the
// secret stands in the clear in the store or in the daemon's log.
func TestConfig(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery-staple"
	c := newCluster(t)
	c.push(map[string]string{
		"config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {COLOUR: blue, file.txt: from a file}\n",
		"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: " + secret + "}\n",
		"pod.yaml": `apiVersion: v1
kind: Pod
metadata:
  name: reader
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, 'echo "$COLOUR $(GREETING) $PASSWORD"; cat /etc/settings/file.txt; echo; cat /etc/key/password; echo; cat /scratch/none || echo empty']
    env:
    - {name: GREETING, value: hello}
    - name: PASSWORD
      valueFrom: {secretKeyRef: {name: key, key: password}}
    envFrom:
    - configMapRef: {name: settings}
    volumeMounts:
    - {name: settings, mountPath: /etc/settings}
    - {name: key, mountPath: /etc/key, readOnly: true}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: key, secret: {secretName: key}}
  - {name: scratch, emptyDir: {}}
`,
	})
	want := []string{"blue hello " + secret, "from a file", secret, "empty"}
	c.eventually(30*time.Second, "the pod's log holds what it read", func() error {
		logs, err := filepath.Glob(filepath.Join(c.data, "logs", "pods", "default_reader_*", "main", "0.log"))
		if err != nil {
			return err
		}
		if len(logs) != 1 {
			return fmt.Errorf("logs %v", logs)
		}
		text, err := os.ReadFile(logs[0])
		if err != nil {
			return err
		}
		for _, w := range want {
			if !strings.Contains(string(text), " stdout F "+w+"\n") {
				return fmt.Errorf("no line %q in:\n%s", w, text)
			}
		}
		return nil
	})
	for _, place := range []string{filepath.Join(c.data, "nats"), c.log.Name()} {
		if file := findText(t, place, secret); file != "" {
			t.Errorf("the secret stands in the clear in %s", file)
		}
	}
}

// TestMissingConfig holds a pod until the object it needs is pushed.
func TestMissingConfig(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	pod := strings.Replace(barePod("waits", "sleep 1000000 & wait", ""), "    image:", "    envFrom: [{configMapRef: {name: later}}]\n    image:", 1)
	c.push(map[string]string{"pod.yaml": pod})
	c.eventually(20*time.Second, "the pod says what it waits for", func() error {
		p := c.pods("waits")["waits"]
		if s := describe(p); !strings.Contains(s, "CreateContainerConfigError") || !strings.Contains(s, "later") {
			return fmt.Errorf("%s", s)
		}
		return nil
	})
	c.push(map[string]string{"later.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {A: b}\n"})
	c.running("waits", 1, 20*time.Second)
}

// findText returns a file below place that holds a text, or "".
func findText(t testing.TB, place, text string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(place, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(raw), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
