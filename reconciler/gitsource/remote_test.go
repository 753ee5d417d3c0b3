package gitsource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// A following is a Remote that runs, and what it found.
type following struct {
	t      testing.TB
	remote *Remote
	found  chan schema.Commit
	log    *logText
	stop   func()
}

// logText collects what was logged.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startFollowing follows with an interval of an hour: only LookNow looks.
func startFollowing(t testing.TB, o RemoteOptions) *following {
	t.Helper()
	f := &following{t: t, found: make(chan schema.Commit, 100), log: &logText{}}
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "mirror.git")
	}
	if o.Interval == 0 {
		o.Interval = time.Hour
	}
	o.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	var err error
	if f.remote, err = NewRemote(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.remote.Run(ctx, func(c schema.Commit) { f.found <- c }) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *following) want(id string) schema.Commit {
	f.t.Helper()
	select {
	case c := <-f.found:
		if c.ID != id {
			f.t.Fatalf("found %s, want %s", c.ID, id)
		}
		return c
	case <-time.After(10 * time.Second):
		f.t.Fatalf("%s was not found; status %+v", id, f.remote.Status())
	}
	panic("unreachable")
}

// look asks for a look and waits until one has ended that began afterwards.
func (f *following) look() RemoteStatus {
	f.t.Helper()
	for range 2 { // the first that ends may have begun before
		before := f.remote.Status().LookedAt
		f.remote.LookNow()
		eventually(f.t, "a look", func() bool { return f.remote.Status().LookedAt.After(before) })
	}
	return f.remote.Status()
}

func (f *following) wantNothing() {
	f.t.Helper()
	select {
	case c := <-f.found:
		f.t.Fatalf("found %s, want nothing", c.ID)
	default:
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within fifteen seconds: %s", what)
		case <-tick.C:
		}
	}
}

func TestFollowABranch(t *testing.T) {
	work := newWork(t)
	first := commit(t, work, "First", map[string]string{"a.yaml": "1"})
	f := startFollowing(t, RemoteOptions{URL: "file://" + work})
	f.want(first)
	f.look()
	f.wantNothing()

	second := commit(t, work, "Second", map[string]string{"a.yaml": "2", "dir/b.yaml": "b"})
	f.remote.LookNow()
	if got := read(t, f.want(second).Tree, "dir/b.yaml"); got != "b" {
		t.Errorf("%q", got)
	}

	// Forced back, then on to something else.
	git(t, work, "reset", "-q", "--hard", first)
	f.remote.LookNow()
	f.want(first)
	third := commit(t, work, "Third", map[string]string{"a.yaml": "3"})
	f.remote.LookNow()
	f.want(third)

	// Deleted: the last good commit stands, and the status says so.
	git(t, work, "branch", "-m", "main", "other")
	if s := f.look(); !strings.Contains(s.Problem, "gone") || s.Commit != third || s.Failures == 0 {
		t.Errorf("%+v", s)
	}
	f.wantNothing()
	git(t, work, "branch", "-m", "other", "main")
	if s := f.look(); s.Problem != "" || s.Failures != 0 || s.Commit != third {
		t.Errorf("%+v", s)
	}
	f.wantNothing()
}

// A daemon that starts while the remote is away goes on with what it has.
func TestMirrorOutlivesTheRemote(t *testing.T) {
	work := newWork(t)
	first := commit(t, work, "First", map[string]string{"a.yaml": "1"})
	o := RemoteOptions{URL: work, Dir: filepath.Join(t.TempDir(), "mirror.git")}
	f := startFollowing(t, o)
	f.want(first)
	f.stop()
	if err := os.Rename(work, work+".away"); err != nil {
		t.Fatal(err)
	}
	f = startFollowing(t, o)
	if got := read(t, f.want(first).Tree, "a.yaml"); got != "1" {
		t.Errorf("%q", got)
	}
	eventually(t, "a failure", func() bool { return f.remote.Status().Failures > 0 })
	if err := os.Rename(work+".away", work); err != nil {
		t.Fatal(err)
	}
	second := commit(t, work, "Second", map[string]string{"a.yaml": "2"})
	f.remote.LookNow()
	f.want(second)

	// Another branch: what the mirror holds is not taken for it.
	f.stop()
	git(t, work, "branch", "other", first)
	o.Branch = "other"
	startFollowing(t, o).want(first)
}

func TestDamagedMirrorIsMadeAnew(t *testing.T) {
	work := newWork(t)
	first := commit(t, work, "First", map[string]string{"a.yaml": "1"})
	o := RemoteOptions{URL: work, Dir: filepath.Join(t.TempDir(), "mirror.git")}
	f := startFollowing(t, o)
	f.want(first)
	f.stop()
	for _, damage := range []func(file string) error{
		func(file string) error { return os.Truncate(file, 20) },
		os.Remove,
		func(file string) error { return os.WriteFile(file, []byte("PACKed"), 0o600) },
	} {
		for _, ending := range []string{"idx", "pack"} {
			files, _ := filepath.Glob(filepath.Join(o.Dir, "objects/pack/*."+ending))
			if len(files) == 0 {
				t.Fatal("no pack")
			}
			os.Chmod(files[0], 0o600)
			if err := damage(files[0]); err != nil {
				t.Fatal(err)
			}
			f := startFollowing(t, o)
			if got := read(t, f.want(first).Tree, "a.yaml"); got != "1" {
				t.Errorf("%q", got)
			}
			f.stop()
		}
	}
	// The same, found while fetching.
	files, _ := filepath.Glob(filepath.Join(o.Dir, "objects/pack/*.idx"))
	os.Chmod(files[0], 0o600)
	if err := os.Truncate(files[0], 1100); err != nil {
		t.Fatal(err)
	}
	second := commit(t, work, "Second", map[string]string{"a.yaml": "2"})
	f = startFollowing(t, o)
	if got := read(t, f.want(second).Tree, "a.yaml"); got != "2" {
		t.Errorf("%q", got)
	}
}

func TestForeignDirectoryIsLeftAlone(t *testing.T) {
	work := newWork(t)
	commit(t, work, "First", map[string]string{"a.yaml": "1"})
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := startFollowing(t, RemoteOptions{URL: work, Dir: dir})
	eventually(t, "a failure", func() bool { return f.remote.Status().Failures > 0 })
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

func TestBranchWithoutTheDeployedPath(t *testing.T) {
	work := newWork(t)
	first := commit(t, work, "First", map[string]string{"prod/a.yaml": "1", "b.yaml": "b"})
	refused := make(chan schema.Commit, 10)
	f := startFollowing(t, RemoteOptions{URL: work, Path: "prod", Refused: func(c schema.Commit, r *schema.Refusal) {
		if len(r.Faults) == 0 {
			t.Error("refused for no fault")
		}
		refused <- c
	}})
	if c := f.want(first); len(c.Tree.Files()) != 1 {
		t.Errorf("%v", c.Tree.Files())
	}
	git(t, work, "mv", "prod", "production")
	second := commit(t, work, "Second", nil)
	s := f.look()
	if s.Refusal == nil || !strings.Contains(s.Problem, `"prod"`) || s.Commit != first || s.Failures != 0 {
		t.Errorf("after %s: %+v", second, s)
	}
	if s := f.look(); s.Refusal == nil {
		t.Errorf("forgotten: %+v", s)
	}
	if len(refused) != 1 {
		t.Fatalf("told %d times that a commit is refused", len(refused))
	}
	if c := <-refused; c.ID != second || c.Subject != "Second" || c.Author != "Ada" || c.Tree != nil {
		t.Errorf("refused: %+v", c)
	}
	git(t, work, "mv", "production", "prod")
	third := commit(t, work, "Third", nil)
	f.remote.LookNow()
	f.want(third)
	if s := f.look(); s.Refusal != nil || s.Problem != "" {
		t.Errorf("%+v", s)
	}
}

func TestFetchIsLimited(t *testing.T) {
	work := newWork(t)
	noise := make([]byte, 1<<20)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	id := commit(t, work, "Large", map[string]string{"noise": string(noise)})
	dir := filepath.Join(t.TempDir(), "mirror.git")
	f := startFollowing(t, RemoteOptions{URL: work, Dir: dir, MaxFetchBytes: 100_000})
	eventually(t, "the limit", func() bool { return strings.Contains(f.remote.Status().Problem, "more than 100000 bytes") })
	f.stop()
	if left, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	startFollowing(t, RemoteOptions{URL: work, Dir: dir}).want(id)
}

func TestOptionsThatCannotWork(t *testing.T) {
	const secret = "hunter2"
	for _, o := range []RemoteOptions{
		{URL: ""},
		{URL: "ftp://example.org/x"},
		{URL: "https://ada:" + secret + "@example.org/x.git"},
		{URL: "https://ada:" + secret + "%zz@example.org/x.git"},
		{URL: "http://example.org/x.git", CredentialsFile: "/c"},
		{URL: "ssh://git@example.org/x.git"},
		{URL: "https://example.org/x.git", Branch: "a..b"},
		{URL: "https://example.org/x.git", Path: "../up"},
	} {
		o.Dir = "/nonexistent"
		_, err := NewRemote(o)
		if !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%+v: %v", o, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the password is shown: %v", err)
		}
	}
	r, err := NewRemote(RemoteOptions{URL: "https://ada@example.org/x.git", Dir: "/nonexistent"})
	if err != nil || strings.Contains(r.Status().URL, "ada") {
		t.Errorf("%v: %+v", err, r.Status())
	}
}

// A hundred fetches leave few packs.
func TestPacksAreJoined(t *testing.T) {
	work := newWork(t)
	id := commit(t, work, "First", map[string]string{"a.yaml": "first"})
	o := RemoteOptions{URL: work, Dir: filepath.Join(t.TempDir(), "mirror.git")}
	r, err := NewRemote(o)
	if err != nil {
		t.Fatal(err)
	}
	m := &mirror{remote: r}
	defer m.close()
	for i := range 60 {
		id = commit(t, work, fmt.Sprint(i), map[string]string{"a.yaml": fmt.Sprint(i)})
		if c, moved, err := m.look(t.Context()); err != nil || !moved || c.ID != id {
			t.Fatalf("look %d: %s, %v, %v", i, c.ID, moved, err)
		}
		if _, moved, err := m.look(t.Context()); err != nil || moved {
			t.Fatalf("second look %d: %v, %v", i, moved, err)
		}
	}
	names, err := packNames(filepath.Join(o.Dir, "objects"))
	if err != nil || len(names) > 20 {
		t.Errorf("%d packs, %v", len(names), err)
	}
	c, err := m.repository.Commit(t.Context(), id, "")
	if err != nil || read(t, c.Tree, "a.yaml") != "59" {
		t.Errorf("%v", err)
	}
}
