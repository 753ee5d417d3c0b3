package gitsource_test

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
)

const token = "0123456789abcdef0123456789abcdef"

// One Pawl's built-in repository is another one's remote: the same bytes that a
// forge would send.
func TestFollowOverHTTP(t *testing.T) {
	var log lockedText
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	follow := make(chan func(), 1)
	dir := t.TempDir()
	if err := os.WriteFile(access.TokenFile(dir, access.Admin), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	door, err := access.Open(access.Options{DataDir: dir, TLS: access.TLSOptions{Listen: "127.0.0.1:0"}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	host, err := githost.New(githost.Options{
		Dir: filepath.Join(dir, "cluster.git"), RunDir: filepath.Join(dir, "run"), Guard: door.Git, Logger: logger,
		Check:  func(context.Context, schema.Commit) ([]schema.Fault, error) { return nil, nil },
		Pushed: func(schema.Commit) { (<-follow)() }, // as a webhook would
	})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	server := httptest.NewServer(host)
	defer server.Close()

	work := filepath.Join(dir, "work")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", work, "-c", "user.name=Ada", "-c", "user.email=a@example.org", "-c", "http.extraHeader=Authorization: Bearer " + token}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	git("init", "-q", "-b", "main")
	push := func(content string) string {
		if err := os.WriteFile(filepath.Join(work, "a.yaml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-q", "-m", content)
		git("push", "-q", "--force", server.URL+githost.Prefix, "main")
		return git("rev-parse", "HEAD")
	}

	credentials := filepath.Join(dir, "credentials")
	write := func(text string) {
		if err := os.WriteFile(credentials, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ada:wrong-secret-password\n")
	remote, err := gitsource.NewRemote(gitsource.RemoteOptions{
		URL: server.URL + githost.Prefix, Dir: filepath.Join(dir, "mirror.git"), Interval: time.Hour, CredentialsFile: credentials, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan schema.Commit, 10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- remote.Run(ctx, func(c schema.Commit) { found <- c }) }()
	want := func(id, content string) {
		t.Helper()
		select {
		case c := <-found:
			got, err := c.Tree.Read(c.Tree.Files()[0], 1000)
			if c.ID != id || string(got) != content || err != nil {
				t.Fatalf("found %s with %q, %v; want %s", c.ID, got, err, id)
			}
		case <-time.After(15 * time.Second):
			t.Fatalf("%s was not found: %+v", id, remote.Status())
		}
	}

	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(remote.Status().Problem, "authentication failed") {
		select {
		case <-deadline:
			t.Fatalf("%+v", remote.Status())
		case <-tick.C:
			remote.LookNow()
		}
	}
	write(token) // a token alone, as forges give them
	follow <- remote.LookNow
	want(push("one"), "one")
	follow <- remote.LookNow
	want(push("two"), "two")
	git("reset", "-q", "--hard", "HEAD~1") // and on: a forced push
	follow <- remote.LookNow
	want(push("three"), "three")

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Contains(text, token) || strings.Contains(text, "wrong-secret") {
		t.Errorf("credentials in the log:\n%s", text)
	}
}

// lockedText collects what is logged.
type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
