package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema/kv"
)

// A cluster is one instance of Pawl on this machine, run from the built binary
// so that it can be killed, with a clone of its repository.
type cluster struct {
	t         testing.TB
	dir       string // everything of it
	data, run string
	http      string
	nats      string
	cidr      string
	args      []string // further flags of `pawld up`
	work      string   // the clone

	conn   *kv.Conn // to the store; nil before the first look
	daemon *exec.Cmd
	done   chan struct{} // closed when the daemon has ended
	open   bool          // the door listens on every address, and so speaks TLS alone
	log    *os.File
}

// subnet counts the clusters of one test run, so that each has a range of its own
// in that of the run.
var subnet atomic.Int32

// octetHeld is open for as long as the process lives.
var octetHeld net.Listener

// octet is the second of the addresses that this run's pods have; other runs on
// the machine have others.
var octet = sync.OnceValues(func() (int, error) {
	var err error
	for i := range 50 {
		n := 200 + (os.Getpid()+i)%50
		if octetHeld, err = net.Listen("unix", fmt.Sprintf("@pawl-e2e-%d", n)); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("every range of addresses is another run's: %w", err)
})

// newCluster starts an instance and clones its repository. The test's end stops
// and removes it, by its own directories, whatever happened.
func newCluster(t testing.TB, args ...string) *cluster {
	t.Helper()
	c := prepareCluster(t, args...)
	c.start()
	c.git("", "clone", "-q", "-c", "include.path="+c.gitConfig(), c.repository(), c.work)
	return c
}

// prepareCluster makes the directories of an instance that is not started yet.
func prepareCluster(t testing.TB, args ...string) *cluster {
	t.Helper()
	// Short, because socket paths are bounded at 107 bytes.
	dir, err := os.MkdirTemp("", "pw")
	if err != nil {
		t.Fatal(err)
	}
	n, err := octet()
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		t: t, dir: dir, data: filepath.Join(dir, "d"), run: filepath.Join(dir, "r"), work: filepath.Join(dir, "w"),
		http: freeAddress(t), nats: freeAddress(t),
		cidr: fmt.Sprintf("10.%d.%d.0/24", n, subnet.Add(1)),
		args: args,
	}
	if c.log, err = os.Create(filepath.Join(dir, "pawld.log")); err != nil {
		t.Fatal(err)
	}
	if _, measured := t.(*testing.B); measured {
		c.mountRun()
	}
	t.Cleanup(c.remove)
	return c
}

// mountRun has the run directory in memory, as /run is on the machines that are
// measured for; it is not on every machine that measures.
func (c *cluster) mountRun() {
	c.t.Helper()
	if err := os.Mkdir(c.run, 0o711); err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", c.run, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=711"); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) repository() string { return c.url() + "/git/cluster.git" }
func (c *cluster) gitConfig() string  { return filepath.Join(c.dir, "pawl", "gitconfig") }

// start runs the daemon and returns when it is ready.
func (c *cluster) start() {
	c.t.Helper()
	args := append([]string{
		"up", "--data", c.data, "--run", c.run, "--http", c.listen(), "--nats-listen", c.nats,
		"--node-name", "n1", "--pod-cidr", c.cidr, "--registry-mirror", "docker.io=" + mirror,
	}, c.args...)
	c.daemon = exec.Command(pawldBin, args...)
	c.daemon.Env = c.env()
	c.daemon.Stdout, c.daemon.Stderr = c.log, c.log
	if err := c.daemon.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		close(done)
	}(c.daemon, c.done)
	c.eventually(60*time.Second, "the daemon is ready", func() error {
		select {
		case <-c.done:
			c.t.Fatalf("pawld ended:\n%s", c.tail())
		default:
		}
		return c.ready()
	})
}

func (c *cluster) ready() error {
	response, err := c.plainClient().Get(c.url() + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", response.Status)
	}
	return nil
}

// kill ends the daemon as a crash does.
func (c *cluster) kill() {
	c.t.Helper()
	c.daemon.Process.Signal(syscall.SIGKILL)
	<-c.done
}

// remove stops and removes everything of the instance.
func (c *cluster) remove() {
	if c.conn != nil {
		c.conn.Close()
	}
	if c.t.Failed() {
		c.t.Logf("the daemon's log ends:\n%s", c.tail())
	}
	out, err := c.pawld(60*time.Second, "down", "--data", c.data, "--run", c.run, "--pod-cidr", c.cidr, "--purge")
	if err != nil {
		c.t.Errorf("pawld down: %v\n%s", err, out)
	}
	c.log.Close()
	if _, measured := c.t.(*testing.B); measured {
		if err := syscall.Unmount(c.run, syscall.MNT_DETACH); err != nil {
			c.t.Error(err)
		}
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Error(err)
	}
}

// env is the environment of every command: nothing of the user's leaks in.
func (c *cluster) env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "TMPDIR=" + c.dir, "XDG_CONFIG_HOME=" + c.dir,
		"GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
	}
}

// command runs a program to its end and returns what it printed.
func (c *cluster) command(timeout time.Duration, dir, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, c.env()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	return string(out), err
}

func (c *cluster) pawld(timeout time.Duration, args ...string) (string, error) {
	return c.command(timeout, "", pawldBin, args...)
}

func (c *cluster) pawl(args ...string) (string, error) {
	return c.command(30*time.Second, "", pawlBin, args...)
}

// git runs git and fails the test when git fails.
func (c *cluster) git(dir string, args ...string) string {
	c.t.Helper()
	out, err := c.command(2*time.Minute, dir, "git", args...)
	if err != nil {
		c.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// write puts files into the clone; an empty text removes the file.
func (c *cluster) write(files map[string]string) {
	c.t.Helper()
	for name, text := range files {
		file := filepath.Join(c.work, name)
		if text == "" {
			if err := os.Remove(file); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
}

// commit commits everything in the clone.
func (c *cluster) commit(message string) {
	c.t.Helper()
	c.git(c.work, "add", "-A")
	c.git(c.work, "commit", "-q", "--allow-empty", "-m", message)
}

// push writes, commits and pushes, and fails the test when the push is refused.
func (c *cluster) push(files map[string]string) string {
	c.t.Helper()
	c.write(files)
	c.commit("change")
	return c.git(c.work, "push", "origin", "HEAD:main")
}

// pushRefused pushes what must be refused, returns what git printed, and takes
// the commit back.
func (c *cluster) pushRefused(files map[string]string) string {
	c.t.Helper()
	c.write(files)
	c.commit("bad")
	out, err := c.command(2*time.Minute, c.work, "git", "push", "origin", "HEAD:main")
	if err == nil {
		c.t.Fatalf("the push was accepted:\n%s", out)
	}
	c.git(c.work, "reset", "-q", "--hard", "HEAD~1")
	return out
}

// eventually polls until check returns nil.
func (c *cluster) eventually(within time.Duration, what string, check func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	c.stacks()
	c.t.Fatalf("not within %s: %s: %v\nthe daemon's log ends:\n%s", within, what, err, c.tail())
}

// tail is the end of the daemon's log.
func (c *cluster) tail() string {
	text, err := os.ReadFile(c.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}

// given are the addresses that tests have: the kernel gives one that was closed again.
var given sync.Map

func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		l.Close()
		if _, taken := given.LoadOrStore(address, true); !taken {
			return address
		}
	}
}
