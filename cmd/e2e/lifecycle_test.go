package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A notebook is a directory of the machine in which containers write what they
// do, each line with its time: logs go with the pod.
type notebook struct {
	t   testing.TB
	dir string
}

func newNotebook(t testing.TB) *notebook {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return &notebook{t: t, dir: dir}
}

// note is a shell command that writes a word into the pod's page.
func note(word string) string { return "echo $(date +%s) " + word + " >> /notes/$PAGE" }

// noted is a shell command that waits until a word is on the pod's page.
func noted(word string) string {
	return "until grep -q ' " + word + "$' /notes/$PAGE; do sleep 0.05; done"
}

// read returns the words of a page and the seconds at which they were written.
func (n *notebook) read(page string) (words []string, at map[string]int) {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, page))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	at = map[string]int{}
	for line := range strings.Lines(string(text)) {
		stamp, word, _ := strings.Cut(strings.TrimSpace(line), " ")
		words = append(words, word)
		at[word], err = strconv.Atoi(stamp)
		if err != nil {
			n.t.Fatalf("page %s: %q", page, line)
		}
	}
	return words, at
}

// A part is one container of a pod that keeps notes.
type part struct {
	name, script, more string
	init               bool
}

// pod is a Pod whose containers keep notes on a page of its name.
func (n *notebook) pod(name, spec string, parts ...part) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n%s", name, spec)
	for _, init := range []bool{true, false} {
		title := map[bool]string{true: "  initContainers:\n", false: "  containers:\n"}[init]
		for _, p := range parts {
			if p.init != init {
				continue
			}
			b.WriteString(title)
			title = ""
			fmt.Fprintf(&b, "  - name: %s\n    image: busybox:1\n    command: [sh, -c, %q]\n    env: [{name: PAGE, value: %s}]\n    volumeMounts: [{name: notes, mountPath: /notes}]\n%s",
				p.name, p.script, name, p.more)
		}
	}
	fmt.Fprintf(&b, "  volumes: [{name: notes, hostPath: {path: %s}}]\n", n.dir)
	return b.String()
}

// serves runs until TERM and notes that.
func serves(name string) string {
	return "trap '" + note(name+"-term") + "; exit 0' TERM; " + note(name+"-start") + "; while :; do sleep 0.05; done"
}

// hook is a lifecycle of shell commands; "" is none.
func hook(postStart, preStop string) string {
	s := "    lifecycle:\n"
	for kind, script := range map[string]string{"postStart": postStart, "preStop": preStop} {
		if script != "" {
			s += fmt.Sprintf("      %s: {exec: {command: [sh, -c, %q]}}\n", kind, script)
		}
	}
	return s
}

// gone waits until a pod is not there any more.
func (c *cluster) gone(name string, within time.Duration) {
	c.t.Helper()
	c.eventually(within, name+" is gone", func() error {
		if p, ok := c.pods(name)[name]; ok {
			return fmt.Errorf("%s", describe(p))
		}
		return nil
	})
}

// wrote waits until a page holds a word.
func (c *cluster) wrote(n *notebook, page, word string) {
	c.t.Helper()
	c.eventually(30*time.Second, page+" says "+word, func() error {
		if words, _ := n.read(page); !slices.Contains(words, word) {
			return fmt.Errorf("it says %v", words)
		}
		return nil
	})
}

// event waits for an Event about a pod.
func (c *cluster) event(pod, reason string) {
	c.t.Helper()
	c.eventually(20*time.Second, "event "+reason, func() error {
		out, err := c.kubectl("get", "events", "--field-selector", "involvedObject.name="+pod, "-o", "jsonpath={.items[*].reason}")
		if err == nil && !slices.Contains(strings.Fields(out), reason) {
			err = fmt.Errorf("there are %s", out)
		}
		return err
	})
}

// TestHooks runs hooks of every kind at both ends of containers.
func TestHooks(t *testing.T) {
	t.Parallel()
	c, n := newCluster(t), newNotebook(t)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Hook") == "yes" {
			asked.Add(1)
		}
		w.WriteHeader(http.StatusTeapot) // any answer is a success
	}))
	defer server.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(server.URL, "http://"), ":")
	get := fmt.Sprintf("{httpGet: {host: 127.0.0.1, port: %s, path: /hook, httpHeaders: [{name: X-Hook, value: 'yes'}]}}", port)

	c.push(map[string]string{
		"exec.yaml": n.pod("exec", "  terminationGracePeriodSeconds: 20\n",
			part{name: "main", script: serves("main"), more: hook(noted("main-start")+"; sleep 0.5; "+note("posted"), note("stopping")+"; sleep 0.5; "+note("stopped"))},
			part{name: "second", script: serves("second")}),
		"get.yaml": n.pod("get", "", part{name: "main", script: serves("main"),
			more: "    lifecycle: {postStart: " + get + ", preStop: " + get + "}\n"}),
		"sleep.yaml": n.pod("sleep", "  terminationGracePeriodSeconds: 10\n", part{name: "main", script: serves("main"),
			more: "    lifecycle: {preStop: {sleep: {seconds: 2}}}\n"}),
		"fails.yaml": n.pod("fails", "  terminationGracePeriodSeconds: 3\n", part{name: "main", script: serves("main"),
			more: hook("exit 7", "")}),
		"badend.yaml": n.pod("badend", "", part{name: "main", script: serves("main"), more: hook("", "exit 7")}),
		// As "fails" it may get its TERM before its shell has set the trap.
		"socket.yaml": n.pod("socket", "  restartPolicy: Never\n  terminationGracePeriodSeconds: 3\n", part{name: "main", script: serves("main"),
			more: "    lifecycle: {postStart: {tcpSocket: {port: 80}}}\n"}),
	})
	for _, name := range []string{"exec", "get", "sleep", "badend"} {
		c.running(name, 1, 60*time.Second)
	}
	c.eventually(30*time.Second, "the failing hook restarts its container", func() error {
		p := c.pods("fails")["fails"]
		if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].RestartCount < 1 {
			return fmt.Errorf("%s", describe(p))
		}
		return nil
	})
	c.event("fails", "FailedPostStartHook")
	c.event("socket", "FailedPostStartHook")
	if asked := asked.Load(); asked != 1 {
		t.Errorf("postStart asked %d times", asked)
	}
	began := time.Now()
	c.push(map[string]string{"exec.yaml": "", "get.yaml": "", "sleep.yaml": "", "fails.yaml": "", "badend.yaml": "", "socket.yaml": ""})
	for _, name := range []string{"exec", "get", "sleep", "fails", "badend", "socket"} {
		c.gone(name, 20*time.Second)
	}
	t.Logf("all gone after %v", time.Since(began))
	words, _ := n.read("exec")
	order(t, words, "main-start", "posted", "second-start", "stopping", "stopped", "main-term")
	if asked := asked.Load(); asked != 2 {
		t.Errorf("both hooks asked %d times", asked)
	}
	c.event("badend", "FailedPreStopHook")
	if words, _ := n.read("badend"); !slices.Contains(words, "main-term") {
		t.Errorf("after a failed preStop there was no TERM: %v", words)
	}
}

// order holds words to an order.
func order(t testing.TB, words []string, want ...string) {
	t.Helper()
	last := -1
	for _, w := range want {
		i := slices.Index(words, w)
		if i <= last {
			t.Errorf("want the order %v, there is %v", want, words)
			return
		}
		last = i
	}
}

// TestSidecarOrder starts sidecars before the app and stops them after it, the
// last one first; their preStop hooks run before that: the app waits for one.
func TestSidecarOrder(t *testing.T) {
	t.Parallel()
	c, n := newCluster(t), newNotebook(t)
	always := "    restartPolicy: Always\n"
	gate := "    startupProbe: {exec: {command: [grep, one-start, /notes/order]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 60}\n"
	c.push(map[string]string{"a.yaml": n.pod("order", "  terminationGracePeriodSeconds: 20\n",
		part{name: "one", init: true, script: "sleep 1; " + serves("one"), more: always + gate + hook("", note("one-stopping"))},
		part{name: "prepare", init: true, script: note("prepared")},
		part{name: "two", init: true, script: serves("two"), more: always + hook(noted("two-start"), "")},
		part{name: "app", script: "stop() { " + note("app-stopping") + "; " + noted("one-stopping") + "; " + note("app-term") + "; exit 0; }; trap stop TERM; " + note("app-start") + "; while :; do sleep 0.05; done"})})
	c.running("order", 1, 60*time.Second)
	c.wrote(n, "order", "app-start")
	c.push(map[string]string{"a.yaml": ""})
	c.gone("order", 40*time.Second)
	words, _ := n.read("order")
	order(t, words, "one-start", "prepared", "two-start", "app-start", "app-stopping", "app-term", "two-term", "one-term")
	order(t, words, "one-stopping", "app-term")
}

// busyMost is how much longer than on a quiet machine an end may take on one that
// does much else.
const busyMost = 10 * time.Second

// TestGracePeriods kills what does not stop in its time, and no earlier.
func TestGracePeriods(t *testing.T) {
	c, n := newCluster(t), newNotebook(t)
	stubborn := "trap '" + note("term") + "' TERM; trap '" + note("usr1") + "' USR1; " + note("start") + "; while :; do sleep 0.05; done"
	pods := []struct {
		name, spec, more  string
		least, most       time.Duration // until it is gone
		says, saysNothing string
	}{
		{"zero", "  terminationGracePeriodSeconds: 0\n", hook("", note("pre")), 0, 2 * time.Second, "start", "pre"},
		{"one", "  terminationGracePeriodSeconds: 1\n", "", time.Second, 3 * time.Second, "term", "usr1"},
		{"two", "  terminationGracePeriodSeconds: 2\n", hook("", note("pre")+"; sleep 1"), 2 * time.Second, 5 * time.Second, "term", "usr1"},
		{"hook", "  terminationGracePeriodSeconds: 1\n", hook("", note("pre")+"; sleep 100"), 3 * time.Second, 5 * time.Second, "term", "usr1"},
		{"signal", "  terminationGracePeriodSeconds: 1\n", "    lifecycle: {stopSignal: SIGUSR1}\n", time.Second, 3 * time.Second, "usr1", "term"},
	}
	files, none := map[string]string{}, map[string]string{}
	for _, p := range pods {
		files[p.name+".yaml"] = n.pod(p.name, p.spec, part{name: "main", script: stubborn, more: p.more})
		none[p.name+".yaml"] = ""
	}
	c.push(files)
	for _, p := range pods {
		c.running(p.name, 1, 60*time.Second)
		c.wrote(n, p.name, "start")
	}
	for _, p := range pods {
		began := time.Now()
		c.push(map[string]string{p.name + ".yaml": ""})
		pushed := time.Now()
		c.gone(p.name, 30*time.Second)
		took, after := time.Since(began), time.Since(pushed)
		if words, _ := n.read(p.name); !slices.Contains(words, p.says) || slices.Contains(words, p.saysNothing) {
			t.Errorf("%s: says %v", p.name, words)
		}
		if took < p.least || after > p.most+busyMost {
			t.Errorf("%s: gone after %v, %v after the push, want %v to %v", p.name, took, after, p.least, p.most)
		}
		t.Logf("%s: gone after %v", p.name, took)
	}
}

// TestKilledAgentGoesOnStopping kills the agent while preStop hooks run: the
// grace period is the first one, and every container gets its signal.
func TestKilledAgentGoesOnStopping(t *testing.T) {
	t.Parallel()
	c, n := newCluster(t), newNotebook(t)
	c.push(map[string]string{
		"short.yaml": n.pod("short", "  terminationGracePeriodSeconds: 30\n", part{name: "main", script: serves("main"), more: hook("", note("pre")+"; sleep 2; "+note("pre-end"))}),
		"long.yaml":  n.pod("long", "  terminationGracePeriodSeconds: 8\n", part{name: "main", script: serves("main"), more: hook("", note("pre")+"; sleep 100")}),
		"post.yaml":  n.pod("post", "", part{name: "main", script: serves("main"), more: hook(note("post")+"; sleep 3; "+note("post-end"), "")}),
	})
	c.wrote(n, "short", "main-start")
	c.wrote(n, "long", "main-start")
	c.wrote(n, "post", "post")
	c.kill() // while postStart runs: it runs again
	c.start()
	c.running("post", 1, 30*time.Second)
	began := time.Now()
	c.push(map[string]string{"short.yaml": "", "long.yaml": ""})
	c.wrote(n, "short", "pre")
	c.wrote(n, "long", "pre")
	c.kill()
	c.start()
	up := time.Since(began)
	c.gone("short", 30*time.Second)
	c.gone("long", 30*time.Second)
	if took := time.Since(began); took < 7*time.Second || took > max(up, 10*time.Second)+busyMost {
		t.Errorf("gone after %v, the daemon was there again after %v; the grace period is 8s", took, up)
	}
	for page, want := range map[string][]string{
		"short": {"main-start", "pre", "pre-end", "main-term"},
		"long":  {"main-start", "pre", "main-term"},
		"post":  {"post", "post-end"}, // beside the container's program, not after its start
	} {
		words, _ := n.read(page)
		order(t, words, want...)
		if i := slices.Index(words, "main-term"); i >= 0 && slices.Contains(words[i+1:], "main-term") {
			t.Errorf("%s: TERM came twice: %v", page, words)
		}
	}
	if p := c.pods("post")["post"]; p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("restarted: %s", describe(p))
	}
}

// TestTerminationMessages reads what containers leave to say.
func TestTerminationMessages(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	never := "  restartPolicy: Never"
	fallback := func(name, script string) string {
		return barePod(name, script, never) + "    terminationMessagePolicy: FallbackToLogsOnError\n"
	}
	long := "i=0; while [ $i -lt 500 ]; do echo 0123456789 >> /dev/termination-log; i=$((i+1)); done; exit 1"
	lines := "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done; exit 1"
	c.push(map[string]string{
		"file.yaml":  barePod("file", "printf 'all is lost' > /dev/termination-log; exit 3", never),
		"path.yaml":  barePod("path", "echo fine > /tmp/last", never+"\n  securityContext: {runAsUser: 1000}") + "    terminationMessagePath: /tmp/last\n",
		"long.yaml":  barePod("long", long, never),
		"log.yaml":   fallback("log", lines),
		"good.yaml":  fallback("good", "echo out"),
		"none.yaml":  barePod("none", "echo out; exit 1", never),
		"again.yaml": barePod("again", "echo attempt > /dev/termination-log; exit 1", ""),
	})
	var numbers strings.Builder
	for i := 120; i < 200; i++ {
		fmt.Fprintln(&numbers, i)
	}
	written := strings.Repeat("0123456789\n", 500)
	for name, want := range map[string]string{
		"file": "all is lost", "path": "fine\n", "long": written[len(written)-4096:], "log": numbers.String(), "good": "", "none": "",
	} {
		c.eventually(60*time.Second, "the message of "+name, func() error {
			end := ended(c.pods(name)[name])
			if end == nil {
				return fmt.Errorf("it has not ended: %s", describe(c.pods(name)[name]))
			}
			if end.Message != want {
				return fmt.Errorf("it is %q, want %q", end.Message, want)
			}
			return nil
		})
	}
	c.eventually(60*time.Second, "the last attempt's message", func() error {
		p := c.pods("again")["again"]
		if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].LastTerminationState.Terminated == nil {
			return fmt.Errorf("%s", describe(p))
		}
		if m := p.Status.ContainerStatuses[0].LastTerminationState.Terminated.Message; m != "attempt\n" {
			return fmt.Errorf("it is %q", m)
		}
		return nil
	})
	files := map[string]string{}
	for _, name := range []string{"file", "path", "long", "log", "good", "none", "again"} {
		files[name+".yaml"] = ""
	}
	c.push(files)
	for name := range files {
		c.gone(strings.TrimSuffix(name, ".yaml"), 20*time.Second)
	}
	if left := countFiles(t, filepath.Join(c.data, "logs", "pods")) - 1; left != 0 {
		t.Errorf("%d files left below logs/pods", left)
	}
}

func ended(p corev1.Pod) *corev1.ContainerStateTerminated {
	if len(p.Status.ContainerStatuses) == 0 {
		return nil
	}
	return p.Status.ContainerStatuses[0].State.Terminated
}
