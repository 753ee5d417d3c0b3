package githost

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// The test binary becomes a daemon when this names its directory.
const daemonEnv = "PAWL_TEST_GITHOST_DAEMON"

func TestMain(m *testing.M) {
	if dir := os.Getenv(daemonEnv); dir != "" {
		if err := daemon(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// daemon serves until it is killed. It says on standard output what it does, and
// hangs where a file's name begins with what shall be hanging: then the parent
// kills it.
func daemon(dir string) error {
	hang := func(c schema.Commit, what string) {
		for _, f := range c.Tree.Files() {
			if strings.HasPrefix(f.Path, what) {
				fmt.Println(what, c.ID)
				select {}
			}
		}
	}
	a, err := openAccess(dir)
	if err != nil {
		return err
	}
	h, err := New(Options{
		Dir: filepath.Join(dir, "cluster.git"), RunDir: filepath.Join(dir, "run"), Guard: a.Git,
		Check: func(_ context.Context, c schema.Commit) ([]schema.Fault, error) {
			hang(c, "check")
			return nil, nil
		},
		Pushed: func(c schema.Commit) {
			hang(c, "pushed")
			fmt.Println("handed-on", c.ID)
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	c, _, err := h.Head(context.Background())
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", os.Getenv(daemonEnv+"_ADDRESS"))
	if err != nil {
		return err
	}
	fmt.Println("serving", listener.Addr(), c.ID)
	return http.Serve(listener, h)
}

// A daemonProcess is a daemon that can be killed.
type daemonProcess struct {
	t       *testing.T
	cmd     *exec.Cmd
	lines   *bufio.Scanner
	address string
	head    string // at its start
}

func startDaemon(t *testing.T, dir, address string) *daemonProcess {
	t.Helper()
	d := &daemonProcess{t: t, cmd: exec.Command(os.Args[0])}
	d.cmd.Env = append(os.Environ(), daemonEnv+"="+dir, daemonEnv+"_ADDRESS="+address)
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	d.lines = bufio.NewScanner(out)
	fields := append(strings.Fields(d.wait("serving")), "", "")
	d.address, d.head = fields[0], fields[1]
	return d
}

// wait returns the rest of the next line that begins with what.
func (d *daemonProcess) wait(what string) string {
	d.t.Helper()
	for d.lines.Scan() {
		if rest, ok := strings.CutPrefix(d.lines.Text(), what); ok {
			return strings.TrimSpace(rest)
		}
	}
	d.t.Fatalf("the daemon ended before it said %q", what)
	return ""
}

func (d *daemonProcess) kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// processesBelow lists what runs with the directory in its command line or
// environment: git and hooks of this test's repository.
func processesBelow(dir string) []string {
	var all []string
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range commands {
		raw, _ := os.ReadFile(file)
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		text := strings.ReplaceAll(string(raw), "\x00", " ")
		if !strings.Contains(string(env), daemonEnv) && strings.Contains(text+string(env), dir) {
			where, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "wchan"))
			files, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "fd/*"))
			for _, f := range files {
				target, _ := os.Readlink(f)
				text += " " + filepath.Base(f) + "=" + target
			}
			all = append(all, text+" in "+string(where))
		}
	}
	return all
}

// wantNoProcesses fails when a process of the repository stays.
func wantNoProcesses(t *testing.T, dir string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("still there: %q", processesBelow(dir))
		}
	}()
	eventually(t, "git and the hook ended", func() bool { return len(processesBelow(dir)) == 0 })
}

// kill -9 of the daemon while a push is checked: the client is told, nothing
// has changed, no process stays, and the next daemon takes the same push.
func TestDaemonIsKilledWhileItChecks(t *testing.T) {
	w := newWorld(t, nil) // for its client only
	dir := t.TempDir()
	d := startDaemon(t, dir, "127.0.0.1:0")
	w.server.URL = "http://" + d.address
	w.authorize(token)
	repository := filepath.Join(dir, "cluster.git")
	w.host.o.Dir, w.host.o.RunDir = repository, filepath.Join(dir, "run")

	good := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", w.url(), "main")
	d.wait("handed-on " + good)

	w.commit(w.work, "check.yaml", "hang")
	push := w.command(w.work, "push", w.url(), "main")
	var out strings.Builder
	push.Stdout, push.Stderr = &out, &out
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	d.wait("check")
	d.kill()
	if err := push.Wait(); err == nil {
		t.Errorf("the push went through:\n%s", out.String())
	}
	wantNoProcesses(t, repository)
	if got := w.ref("main"); got != good {
		t.Errorf("main is %s, want %s", got, good)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "run", "*")); len(left) != 1 {
		t.Errorf("%v: the killed daemon was to leave its push behind", left)
	}

	d = startDaemon(t, dir, d.address)
	if left, _ := filepath.Glob(filepath.Join(dir, "run", "*")); len(left) != 0 {
		t.Errorf("%v: the new daemon was to remove this", left)
	}
	if d.head != good {
		t.Errorf("the new daemon starts with %q, want %s", d.head, good)
	}
	w.git(w.work, "mv", "check.yaml", "b.yaml")
	better := w.commit(w.work, "a.yaml", "better")
	w.git(w.work, "push", w.url(), "main")
	d.wait("handed-on " + better)

	// Killed between the reference and the hand-over: the push is whole.
	last := w.commit(w.work, "pushed.yaml", "hang")
	push = w.command(w.work, "push", w.url(), "main")
	if err := push.Start(); err != nil {
		t.Fatal(err)
	}
	d.wait("pushed")
	d.kill()
	push.Wait() // the client was not told: it may ask again
	wantNoProcesses(t, repository)
	d = startDaemon(t, dir, d.address)
	if d.head != last {
		t.Errorf("the new daemon starts with %q, want %s", d.head, last)
	}
	w.git(w.work, "push", w.url(), "main")
	w.git(w.host.o.Dir, "fsck", "--strict")
}

// The daemon is killed at any instant of a push, again and again. Whatever
// happens, the head is a whole commit, and nothing is left over.
func TestDaemonIsKilledAtAnyInstant(t *testing.T) {
	w := newWorld(t, nil)
	dir := t.TempDir()
	d := startDaemon(t, dir, "127.0.0.1:0")
	w.server.URL = "http://" + d.address
	w.authorize(token)
	w.host.o.Dir, w.host.o.RunDir = filepath.Join(dir, "cluster.git"), filepath.Join(dir, "run")
	w.commit(w.work, "a.yaml", "good")
	start := time.Now()
	w.git(w.work, "push", w.url(), "main")
	length := time.Since(start)
	through := 0
	for i := range 25 {
		id := w.commit(w.work, "a.yaml", fmt.Sprint(i))
		push := w.command(w.work, "push", w.url(), "main")
		if err := push.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(i) * length / 12) // spreads the kills over a push, and further
		d.kill()
		err := push.Wait()
		wantNoProcesses(t, w.host.o.Dir)
		head := w.ref("main")
		if err == nil && head != id {
			t.Fatalf("an acknowledged push is gone: main is %q, want %s", head, id)
		}
		if head == id {
			through++
		}
		d = startDaemon(t, dir, d.address)
		if d.head != head {
			t.Fatalf("the daemon starts with %q, want %q", d.head, head)
		}
	}
	t.Logf("%d of 25 pushes went through", through)
	w.commit(w.work, "a.yaml", "last")
	w.git(w.work, "push", w.url(), "main")
	w.git(w.host.o.Dir, "fsck", "--strict")
}

// Locks that nobody holds any more do not refuse pushes for ever.
func TestLeftoversAreRemoved(t *testing.T) {
	w := newWorld(t, nil)
	id := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(id)
	old := time.Now().Add(-time.Hour)
	var left []string
	for _, name := range []string{"refs/heads/main.lock", "packed-refs.lock", "config.lock", "HEAD.lock"} {
		path := filepath.Join(w.host.o.Dir, name)
		err := os.WriteFile(path, nil, 0o600)
		if err == nil {
			err = os.Chtimes(path, old, old)
		}
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, path)
	}
	push := filepath.Join(w.host.o.RunDir, pushDirPrefix+"left")
	if err := os.MkdirAll(filepath.Join(push, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	quarantine := filepath.Join(w.host.o.Dir, "objects", quarantinePrefix+"left")
	if err := os.MkdirAll(filepath.Join(quarantine, "ab"), 0o700); err != nil {
		t.Fatal(err)
	}
	host, err := New(w.host.o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(quarantine); err != nil {
		t.Error("a quarantine was removed that may still be in use")
	}
	synctest.Test(t, func(t *testing.T) {
		host.grown, host.missed = make(chan struct{}), make(chan struct{}) // of the bubble
		ctx, cancel := context.WithTimeout(t.Context(), 2*grace)
		defer cancel()
		if err := host.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, path := range append(left, push, quarantine) {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	id = w.commit(w.work, "a.yaml", "good again")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(id)
}

// Hundreds of pushes are packed in the background while pushes go on.
func TestTheRepositoryIsKeptSmall(t *testing.T) {
	w := newWorld(t, nil)
	config := filepath.Join(w.host.o.Dir, "config")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), "auto = 2000", "auto = 100", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.host.Run(ctx) }()
	var content strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&content, "%d\n", i)
		path := filepath.Join(w.work, fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(path, []byte(content.String()[max(0, content.Len()-50):]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.git(w.work, "add", "-A")
	w.git(w.work, "-c", "gc.auto=0", "commit", "-q", "-m", "many")
	// Unpacked, as many small pushes would leave it.
	pack := w.command(w.work, "pack-objects", "--revs", "--stdout", "-q")
	pack.Stdin = strings.NewReader("main\n")
	raw, err := pack.Output()
	if err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("git", "--git-dir="+w.host.o.Dir, "unpack-objects", "-q")
	unpack.Stdin = strings.NewReader(string(raw))
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(w.git(w.work, "rev-parse", "HEAD"))
	eventually(t, "packed", func() bool {
		loose, _ := filepath.Glob(filepath.Join(w.host.o.Dir, "objects", "??", "*"))
		packs, _ := filepath.Glob(filepath.Join(w.host.o.Dir, "objects", "pack", "*.pack"))
		return len(loose) < 100 && len(packs) > 0
	})
	id := w.commit(w.work, "more.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	c := w.wantPushed(id)
	if len(c.Tree.Files()) != 1501 {
		t.Errorf("%d files", len(c.Tree.Files()))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
