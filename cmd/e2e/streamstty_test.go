package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalPod answers each line with its terminal's size.
const terminalPod = `apiVersion: v1
kind: Pod
metadata: {name: term}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1
    stdin: true
    tty: true
    command: [sh, -c, "while read -r x; do echo \"got $x on $(stty size)\"; done"]
`

// A terminal is what a person sits at.
type terminal struct {
	master *os.File
	out    lockedBuffer
}

// onTerminal starts a client on a terminal of its own, until the test's end.
func (c *cluster) onTerminal(argv []string) (*terminal, *exec.Cmd) {
	c.t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	t := &terminal{master: os.NewFile(uintptr(fd), "ptmx")}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer slave.Close()
	t.resize(c, 30, 100)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(c.env(), "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b := make([]byte, 4096)
		for {
			n, err := t.master.Read(b)
			if err != nil {
				return // EIO: the client has gone
			}
			t.out.Write(b[:n])
		}
	}()
	c.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); t.master.Close(); <-read })
	return t, cmd
}

func (t *terminal) resize(c *cluster, rows, columns uint16) {
	c.t.Helper()
	if err := unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		c.t.Fatal(err)
	}
}

// answers types a line until the container has answered with the terminal's size.
func (t *terminal) answers(c *cluster, word, size string) {
	c.t.Helper()
	c.eventually(20*time.Second, fmt.Sprintf("%s is answered on %s", word, size), func() error {
		fmt.Fprintf(t.master, "%s\n", word)
		time.Sleep(100 * time.Millisecond)
		return t.out.has("got " + word + " on " + size)()
	})
}

// TestAttachTerminal sits at a container's terminal with both clients: its size
// is theirs, also when that changes, and a client that goes leaves it running.
func TestAttachTerminal(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"term.yaml": terminalPod})
	before := c.running("term", 1, 60*time.Second)["term"]
	for name, argv := range c.both("attach", "-it", "term") {
		at, cmd := c.onTerminal(argv)
		at.answers(c, "one-"+name, "30 100")
		at.resize(c, 40, 120)
		at.answers(c, "two-"+name, "40 120")
		cmd.Process.Kill()
		cmd.Wait()
	}
	at, _ := c.onTerminal([]string{pawlBin, "attach", "-it", "term", "-c", "main"})
	at.answers(c, "three", "30 100")
	after := c.running("term", 1, 10*time.Second)["term"]
	if a, b := before.Status.ContainerStatuses[0], after.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || b.RestartCount != 0 {
		t.Errorf("it was restarted: %s", describe(after))
	}
	if out, err := c.pawl("attach", "-it", "term", "-c", "nosuch"); exitCode(err) != 1 || !strings.Contains(out, "nosuch") {
		t.Errorf("a container that is not there: %v: %s", err, out)
	}
}

// crowd is a pod of many with an init container and two others; the first of
// them fails once.
const crowd = `apiVersion: v1
kind: Pod
metadata: {name: crowd-%[1]d, labels: {app: crowd}}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: first, image: "busybox:1", command: [sh, -c, "echo first of %[1]d"]}
  containers:
  - name: one
    image: busybox:1
    volumeMounts: [{name: mark, mountPath: /mark}]
    command: [sh, -c, "test -e /mark/x && echo again of %[1]d && exit; touch /mark/x; echo one of %[1]d; exit 1"]
  - {name: two, image: "busybox:1", command: [sh, -c, "echo two of %[1]d; echo 2 two of %[1]d"]}
  volumes: [{name: mark, emptyDir: {}}]
`

// TestLogsOfMany reads the logs of pods by their label, of init containers and of
// containers' lives before this, with both clients.
func TestLogsOfMany(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	files := map[string]string{"again.yaml": strings.NewReplacer("crowd-%[1]d", "again", "app: crowd", "app: again", "&& exit;", "&& exec sleep 1000;", "%[1]d", "9").Replace(crowd)}
	for i := range 3 {
		files[fmt.Sprintf("crowd-%d.yaml", i)] = fmt.Sprintf(crowd, i)
	}
	c.push(files)
	c.eventually(90*time.Second, "all have ended", func() error {
		pods := c.pods("crowd-")
		for _, p := range pods {
			if p.Status.Phase != "Succeeded" {
				return fmt.Errorf("%s", describe(p))
			}
		}
		if len(pods) != 3 {
			return fmt.Errorf("%d pods", len(pods))
		}
		again := c.pods("again")["again"]
		for _, s := range again.Status.ContainerStatuses {
			if s.Name == "one" && s.RestartCount == 1 && s.State.Running != nil {
				return nil
			}
		}
		return fmt.Errorf("%s", describe(again))
	})
	for name, client := range c.clients() {
		words := func(args string) string {
			t.Helper()
			out, err := client(strings.Fields(args)...)
			if err != nil {
				t.Errorf("%s %s: %v\n%s", name, args, err, out)
			}
			return out
		}
		for _, args := range []string{"logs -l app=crowd --prefix --all-containers --max-log-requests 9", "logs -f -l app=crowd --prefix --all-containers --max-log-requests 9"} {
			out := words(args)
			for i := range 3 {
				for container, text := range map[string]string{"first": "first of", "one": "again of", "two": "2 two of"} {
					if line := fmt.Sprintf("[pod/crowd-%d/%s] %s %d\n", i, container, text, i); !strings.Contains(out, line) {
						t.Errorf("%s %s: no %q in\n%s", name, args, line, out)
					}
				}
			}
			if n := strings.Count(out, "\n"); n != 12 {
				t.Errorf("%s %s: %d lines\n%s", name, args, n, out)
			}
		}
		if out, err := client(strings.Fields("logs -f -l app=crowd --all-containers")...); exitCode(err) != 1 || !strings.Contains(out, "--max-log-requests") {
			t.Errorf("%s: nine at once, five are allowed: %v\n%s", name, err, out)
		}
		for args, want := range map[string]string{
			"logs crowd-1 -c first":             "first of 1\n",
			"logs crowd-1 -c one":               "again of 1\n",
			"logs again -c one":                 "again of 9\n",
			"logs again -c one --previous":      "one of 9\n",
			"logs crowd-2 -c two --tail=1":      "2 two of 2\n",
			"logs -l app=nosuch --tail=1":       "No resources found in default namespace.\n",
			"logs -l app=crowd -c two --tail=1": "2 two of 0\n2 two of 1\n2 two of 2\n",
		} {
			lines := strings.SplitAfter(words(args), "\n") // of pods in any order
			slices.Sort(lines)
			if out := strings.Join(lines, ""); out != want {
				t.Errorf("%s %s: %q, want %q", name, args, out, want)
			}
		}
	}
}
