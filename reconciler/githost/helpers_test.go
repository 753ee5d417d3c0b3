package githost

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

const token = "0123456789abcdef0123456789abcdef"

// A world is a host behind a server, and a working repository that pushes to it.
type world struct {
	t      testing.TB
	host   *Host
	server *httptest.Server
	work   string
	config string // of the client: an include file with the token
	pushed chan schema.Commit
	dir    string // above the repository and the run directory
}

// check refuses a commit for every file that says so, and warns of others.
func check(ctx context.Context, c schema.Commit) (warnings []schema.Fault, err error) {
	var refusal schema.Refusal
	for _, f := range c.Tree.Files() {
		if f.Mode == schema.ModeSymlink {
			refusal.Faults = append(refusal.Faults, schema.Fault{File: f.Path, Problem: "is a symlink"})
			continue
		}
		content, err := c.Tree.Read(f, 1<<20)
		if err != nil {
			refusal.Faults = append(refusal.Faults, schema.Fault{File: f.Path, Problem: err.Error()})
			continue
		}
		switch text := string(content); {
		case strings.HasPrefix(text, "bad"):
			refusal.Faults = append(refusal.Faults, schema.Fault{File: f.Path, Line: 1, Column: 2, Field: "spec", Problem: strings.TrimSpace(text)})
		case strings.HasPrefix(text, "broken"):
			return nil, fmt.Errorf("the disk is on fire: %w", schema.ErrUnavailable)
		case strings.HasPrefix(text, "odd"):
			warnings = append(warnings, schema.Fault{File: f.Path, Line: 1, Problem: "is odd"})
		}
	}
	if refusal.Faults != nil {
		return nil, &refusal
	}
	return warnings, nil
}

func newWorld(t testing.TB, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, pushed: make(chan schema.Commit, 1000), dir: t.TempDir()}
	o := Options{
		Dir:    filepath.Join(w.dir, "cluster.git"),
		RunDir: filepath.Join(w.dir, "run"),
		Guard:  guard(t, w.dir),
		Check:  check,
		Pushed: func(c schema.Commit) { w.pushed <- c },
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	if change != nil {
		change(&o)
	}
	var err error
	if w.host, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.host.Close() })
	mux := http.NewServeMux()
	mux.Handle("/git/", w.host)
	w.server = httptest.NewServer(mux)
	t.Cleanup(w.server.Close)
	w.config = filepath.Join(w.dir, "client.config")
	w.authorize(token)
	w.work = w.clone()
	return w
}

// guard is the daemon's own, with a data directory in which the token is known.
func guard(t testing.TB, dir string) func(http.Handler) http.Handler {
	t.Helper()
	a, err := openAccess(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a.Git
}

func openAccess(dir string) (*access.Access, error) {
	if err := os.WriteFile(access.TokenFile(dir, access.Admin), []byte(token), 0o600); err != nil {
		return nil, err
	}
	return access.Open(access.Options{DataDir: dir, TLS: access.TLSOptions{Listen: "127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler)})
}

// testWriter prints what the host logs as part of the test's output.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) authorize(token string) {
	text := fmt.Sprintf("[http %q]\n\textraHeader = Authorization: Bearer %s\n", w.server.URL, token)
	if err := os.WriteFile(w.config, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) url() string { return w.server.URL + Prefix }

// clone makes another working repository with the host as origin.
func (w *world) clone() string {
	dir := w.t.TempDir()
	w.git(dir, "init", "-q", "-b", "main")
	w.git(dir, "remote", "add", "origin", w.url())
	return dir
}

// command is git as a user would run it.
func (w *world) command(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + w.config,
		"GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org",
	}
	return cmd
}

// try runs git and returns both of its outputs together.
func (w *world) try(dir string, args ...string) (string, error) {
	out, err := w.command(dir, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	out, err := w.try(dir, args...)
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// commit writes one file and commits it.
func (w *world) commit(dir, name, content string) string {
	w.t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.git(dir, "add", "-A")
	w.git(dir, "commit", "-q", "-m", "change "+name)
	return w.git(dir, "rev-parse", "HEAD")
}

// wantPushed fails unless the commit is what Pushed is told next.
func (w *world) wantPushed(id string) schema.Commit {
	w.t.Helper()
	select {
	case c := <-w.pushed:
		if c.ID != id {
			w.t.Fatalf("Pushed(%s), want %s", c.ID, id)
		}
		return c
	case <-time.After(10 * time.Second):
		w.t.Fatalf("Pushed was not called for %s", id)
	}
	panic("unreachable")
}

func (w *world) wantNothingPushed() {
	w.t.Helper()
	select {
	case c := <-w.pushed:
		w.t.Fatalf("Pushed(%s), want no call", c.ID)
	default:
	}
}

// ref returns what the server's reference holds, or "".
func (w *world) ref(name string) string {
	cmd := exec.Command("git", "rev-parse", "--verify", "-q", name)
	cmd.Dir = w.host.o.Dir
	out, _ := cmd.Output()
	return strings.TrimSpace(string(bytes.TrimSpace(out)))
}

// eventually polls until ok, or fails after half a minute.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within half a minute: %s", what)
		case <-tick.C:
		}
	}
}

// wantNoLeftovers fails when a push has left something on disk.
func (w *world) wantNoLeftovers() {
	w.t.Helper()
	eventually(w.t, "no leftovers", func() bool {
		a, _ := filepath.Glob(filepath.Join(w.host.o.RunDir, "*"))
		b, _ := filepath.Glob(filepath.Join(w.host.o.Dir, "objects", quarantinePrefix+"*"))
		return len(a)+len(b) == 0
	})
}

// setGroup gives the process and its children a group of their own.
func setGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills the process and its children.
func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
