package githost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

// The data directory may be a link to a larger disk.
func TestPushBehindALink(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(filepath.Dir(o.Dir), link); err != nil {
			t.Fatal(err)
		}
		o.Dir, o.RunDir = filepath.Join(link, "cluster.git"), filepath.Join(link, "run")
	})
	id := w.commit(w.work, "web.yaml", "good")
	wantText(t, w.git(w.work, "push", "origin", "main"), "remote: pawl: accepted "+id[:7]+": 1 file")
	w.wantPushed(id)
}

func TestGoodPush(t *testing.T) {
	w := newWorld(t, nil)
	if _, ok, err := w.host.Head(t.Context()); ok || err != nil {
		t.Fatalf("Head of an empty repository: %v, %v", ok, err)
	}
	id := w.commit(w.work, "web.yaml", "good")
	out := w.git(w.work, "push", "origin", "main")
	wantText(t, out, "remote: pawl: accepted "+id[:7]+": 1 file")
	c := w.wantPushed(id)
	if got, err := c.Tree.Read(c.Tree.Files()[0], 100); string(got) != "good" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	w.commit(w.work, "odd.yaml", "odd")
	out = w.git(w.work, "push", "origin", "main")
	wantText(t, out, "remote: warning: odd.yaml:1: is odd", ": 2 files, 1 warning")
	c = w.wantPushed(w.git(w.work, "rev-parse", "HEAD"))
	if len(c.Tree.Files()) != 2 || c.Author != "Ada" {
		t.Errorf("%+v", c)
	}
	w.wantNoLeftovers()
	w.wantNothingPushed()
}

func TestBadPush(t *testing.T) {
	w := newWorld(t, nil)
	w.commit(w.work, "a.yaml", "bad from the start")
	out, err := w.try(w.work, "push", "origin", "main")
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, out, "remote: a.yaml:1:2: spec: bad from the start", "refused: 1 fault, nothing was changed; nothing is deployed yet", "pre-receive hook declined")

	good := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(good)
	w.commit(w.work, "a.yaml", "bad \x1b[31mred")
	w.commit(w.work, "b.yaml", "bad too $(touch /tmp/never) `touch /tmp/never`")
	out, err = w.try(w.work, "push", "origin", "main")
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, out, "a.yaml:1:2: spec: bad ?[31mred", "b.yaml:1:2: spec: bad too $(touch /tmp/never)", "refused: 2 faults, nothing was changed; the running revision stays "+good[:7])
	if got := w.ref("main"); got != good {
		t.Errorf("main is %s", got)
	}

	w.commit(w.work, "b.yaml", "broken")
	out, err = w.try(w.work, "push", "origin", "main")
	if err == nil || strings.Contains(out, "on fire") {
		t.Errorf("%v: %s", err, out)
	}
	wantText(t, out, "try again")
	w.wantNothingPushed()
	w.wantNoLeftovers()
}

func TestWithoutTheTokenNothingIsAnswered(t *testing.T) {
	w := newWorld(t, nil)
	id := w.commit(w.work, "a.yaml", "good")
	for _, wrong := range []string{"wrong", "", token + "x", token[:31]} {
		w.authorize(wrong)
		out, err := w.try(w.work, "push", "origin", "main")
		if err == nil {
			t.Fatalf("token %q was taken", wrong)
		}
		if strings.Contains(out, token) {
			t.Errorf("the token is shown:\n%s", out)
		}
	}
	for _, path := range []string{"/git/", Prefix, Prefix + "/info/refs?service=git-upload-pack", Prefix + "/git-receive-pack", Prefix + "/HEAD", "/git/other"} {
		response, err := http.Get(w.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized || response.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	// As a person would: any user name, the token as password.
	if err := os.WriteFile(w.config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(w.url(), "http://", "http://ada:"+token+"@", 1)
	w.git(w.work, "push", url, "main")
	w.wantPushed(id)
}

func TestOnlySmartHTTPIsServed(t *testing.T) {
	w := newWorld(t, nil)
	for _, request := range []string{
		"GET /HEAD", "GET /config", "GET /objects/info/packs", "GET /info/refs", "GET /info/refs?service=git-upload-archive",
		"POST /git-upload-archive", "GET /git-receive-pack", "POST /info/refs?service=git-receive-pack", "GET /../token", "PUT /git-receive-pack", "GET /hooks/pre-receive",
	} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequest(method, w.url()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Errorf("%s is served", request)
		}
	}
}

func TestBranchesTagsAndDeletion(t *testing.T) {
	w := newWorld(t, nil)
	first := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(first)

	w.git(w.work, "checkout", "-q", "-b", "review")
	w.commit(w.work, "a.yaml", "bad idea")
	w.commit(w.work, "odd.yaml", "odd")
	out := w.git(w.work, "push", "origin", "review")
	wantText(t, out, "warning: a.yaml:1:2: spec: bad idea", "review would be refused on main: 1 fault")
	w.commit(w.work, "a.yaml", "broken")
	wantText(t, w.git(w.work, "push", "origin", "review"), "review could not be checked")
	w.commit(w.work, "a.yaml", "better")
	wantText(t, w.git(w.work, "push", "origin", "review"), "warning: odd.yaml:1: is odd", "review would be accepted on main")
	w.git(w.work, "tag", "-a", "-m", "x", "v1")
	w.git(w.work, "push", "origin", "v1", "HEAD:refs/notes/x")
	w.git(w.work, "push", "origin", "--delete", "review", "v1")
	w.wantNothingPushed()

	out, err := w.try(w.work, "push", "origin", "--delete", "main")
	if err == nil || w.ref("main") != first {
		t.Errorf("deleted: %v", err)
	}
	wantText(t, out, "main is the deployed branch and stays")

	// One bad branch refuses the whole push.
	w.commit(w.work, "a.yaml", "bad")
	out, err = w.try(w.work, "push", "origin", "HEAD:main", "HEAD:refs/heads/other")
	if err == nil || w.ref("other") != "" {
		t.Errorf("half a push: %v\n%s", err, out)
	}
	// A tag is no commit on a branch.
	tag := w.git(w.work, "rev-parse", "v1")
	if out, err := w.try(w.work, "push", "origin", tag+":refs/heads/main"); err == nil {
		t.Errorf("a tag became the head:\n%s", out)
	}
	w.wantNothingPushed()
	w.wantNoLeftovers()
}

func TestForcedPush(t *testing.T) {
	w := newWorld(t, nil)
	first := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(first)
	second := w.commit(w.work, "a.yaml", "good too")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(second)
	w.git(w.work, "reset", "-q", "--hard", first)
	w.git(w.work, "push", "--force", "origin", "main")
	w.wantPushed(first)
	third := w.commit(w.work, "a.yaml", "another way")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(third)

	// Somebody else, who has not seen it, is told by git.
	other := w.clone()
	w.commit(other, "b.yaml", "good")
	if out, err := w.try(other, "push", "origin", "main"); err == nil {
		t.Errorf("pushed over the other's work:\n%s", out)
	}
	// Nothing new is nothing to do.
	w.git(w.work, "push", "origin", "main")
	w.wantNothingPushed()
}

func TestFetchAndClone(t *testing.T) {
	w := newWorld(t, nil)
	id := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	dir := filepath.Join(t.TempDir(), "clone")
	w.git(w.work, "clone", "-q", w.url(), dir)
	if got := w.git(dir, "rev-parse", "HEAD"); got != id {
		t.Errorf("cloned %s", got)
	}
	if got := w.git(dir, "rev-parse", "--abbrev-ref", "HEAD"); got != "main" {
		t.Errorf("on branch %s", got)
	}
}

func TestSymlinkAndDeployedPath(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Path, o.Branch = "clusters/prod", "deploy" })
	w.git(w.work, "checkout", "-q", "-b", "deploy")
	w.commit(w.work, "elsewhere.yaml", "bad but elsewhere")
	out, err := w.try(w.work, "push", "origin", "deploy")
	if err == nil {
		t.Fatal("a commit without the deployed path was accepted")
	}
	wantText(t, out, `no directory "clusters/prod"`)
	id := w.commit(w.work, "clusters/prod/a.yaml", "good")
	w.git(w.work, "push", "origin", "deploy")
	if c := w.wantPushed(id); len(c.Tree.Files()) != 1 || c.Tree.Files()[0].Path != "a.yaml" {
		t.Errorf("%v", c.Tree.Files())
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(w.work, "clusters/prod/link.yaml")); err != nil {
		t.Fatal(err)
	}
	w.commit(w.work, "clusters/prod/b.yaml", "good")
	out, err = w.try(w.work, "push", "origin", "deploy")
	if err == nil {
		t.Fatal("a symlink was accepted")
	}
	wantText(t, out, "link.yaml: is a symlink")
	// main is only a branch here.
	w.git(w.work, "push", "origin", "HEAD:refs/heads/main")
	w.wantNothingPushed()
}

// noise writes a file that does not compress.
func noise(t *testing.T, path string, bytes int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), int64(bytes)); err != nil {
		t.Fatal(err)
	}
}

// allocated runs do and returns how many bytes were allocated meanwhile: what
// only streams through allocates next to nothing.
func allocated(do func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

func TestLargeFiles(t *testing.T) {
	w := newWorld(t, nil)
	good := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(good)
	for _, c := range []struct {
		bytes int
		want  string
	}{
		{100 << 20, "pack exceeds maximum allowed size"}, // git stops reading
		{40 << 20, "large.bin: "},                        // the check refuses to read it
	} {
		noise(t, filepath.Join(w.work, "large.bin"), c.bytes)
		w.git(w.work, "-c", "core.compression=0", "add", "-A")
		w.git(w.work, "-c", "core.compression=0", "commit", "-q", "--amend", "-m", "large")
		var out string
		var err error
		if n := allocated(func() { out, err = w.try(w.work, "-c", "core.compression=0", "push", "--force", "origin", "main") }); n > 20<<20 {
			t.Errorf("%d MiB allocated for a push of %d MiB", n>>20, c.bytes>>20)
		}
		if err == nil {
			t.Fatal("accepted")
		}
		wantText(t, out, c.want)
		w.wantNothingPushed()
		w.wantNoLeftovers()
	}
	if got := w.ref("main"); got != good {
		t.Errorf("main is %s", got)
	}
}

// Eight people push to the deployed branch at the same time, each until it is
// through. Pushed hears every state that was the head for long enough to be
// seen, in their order, and the last one in any case.
func TestConcurrentPushes(t *testing.T) {
	w := newWorld(t, nil)
	first := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(first)
	const people = 8
	var group sync.WaitGroup
	for i := range people {
		dir := w.clone()
		group.Go(func() {
			w.git(dir, "pull", "-q", "--rebase", "origin", "main")
			w.commit(dir, fmt.Sprintf("%d.yaml", i), "good")
			for {
				out, err := w.try(dir, "push", "origin", "main")
				if err == nil {
					return
				}
				if !strings.Contains(out, "fetch first") && !strings.Contains(out, "failed to update ref") && !strings.Contains(out, "cannot lock ref") && !strings.Contains(out, "non-fast-forward") && !strings.Contains(out, "incorrect old value") {
					t.Errorf("push: %s", out)
					return
				}
				w.git(dir, "pull", "-q", "--rebase", "origin", "main")
			}
		})
	}
	group.Wait()
	head := w.ref("main")
	if n := w.git(w.host.o.Dir, "rev-list", "--count", head); n != fmt.Sprint(people+1) {
		t.Errorf("%s commits on main, want %d", n, people+1)
	}
	last := first
	for last != head {
		select {
		case c := <-w.pushed:
			w.git(w.host.o.Dir, "merge-base", "--is-ancestor", last, c.ID)
			last = c.ID
		case <-time.After(5 * time.Second):
			t.Fatalf("the head %s was not handed on; the last was %s", head, last)
		}
	}
	w.wantNothingPushed()
	w.wantNoLeftovers()
}

// While a check runs, the client is killed. What was sent whole is decided
// without it, and handed on.
func TestClientIsKilledWhileItsPushIsChecked(t *testing.T) {
	checking, release := make(chan bool, 1), make(chan bool)
	w := newWorld(t, func(o *Options) {
		o.Check = func(ctx context.Context, c schema.Commit) ([]schema.Fault, error) {
			checking <- true
			if !<-release {
				return nil, &schema.Refusal{Faults: []schema.Fault{{Problem: "no"}}}
			}
			return nil, nil
		}
	})
	for _, accept := range []bool{true, false} {
		before := w.ref("main")
		id := w.commit(w.work, "a.yaml", fmt.Sprint(accept))
		push := w.command(w.work, "push", "origin", "main")
		setGroup(push)
		if err := push.Start(); err != nil {
			t.Fatal(err)
		}
		<-checking
		killGroup(push)
		push.Wait()
		release <- accept
		if accept {
			w.wantPushed(id)
			before = id
		}
		w.wantNoLeftovers()
		if got := w.ref("main"); got != before {
			t.Errorf("main is %s, want %s", got, before)
		}
	}
	w.wantNothingPushed()
}

// A client that is killed, or falls silent, before it has sent everything.
func TestClientThatDoesNotFinish(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Idle = 300 * time.Millisecond })
	for i := range 4 {
		silent, length := i%2 == 1, int64(i/2*1000-1) // -1: chunked
		body, send := io.Pipe()
		r, err := http.NewRequest("POST", w.url()+"/git-receive-pack", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = max(length, -1)
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/x-git-receive-pack-request")
		answered := make(chan error, 1)
		go func() {
			response, err := http.DefaultTransport.RoundTrip(r)
			if err == nil {
				_, err = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
			answered <- err
		}()
		io.WriteString(send, "00a70000000000000000000000000000000000000000 1111111111111111111111111111111111111111 refs/heads/main\x00 report-status side-band-64k object-format=sha1")
		if !silent {
			send.CloseWithError(errors.New("killed"))
		}
		select {
		case <-answered:
		case <-time.After(10 * time.Second):
			t.Fatal("the push hangs")
		}
		send.Close()
		w.wantNoLeftovers()
		wantNoProcesses(t, w.host.o.Dir)
	}
	eventually(t, "free slots", func() bool { return len(w.host.pushes) == 0 })
	id := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(id)
}

// Somebody with access to the machine pushes into the directory.
func TestPushIntoTheDirectoryIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	w.commit(w.work, "a.yaml", "good")
	out, err := w.try(w.work, "push", w.host.o.Dir, "main")
	if err == nil {
		t.Fatal("accepted unchecked")
	}
	wantText(t, out, "push over HTTP")
}

func TestOptionsThatCannotWork(t *testing.T) {
	good := Options{Dir: filepath.Join(t.TempDir(), "c.git"), RunDir: t.TempDir(), Guard: guard(t, t.TempDir()), Check: check, Pushed: func(schema.Commit) {}}
	for name, change := range map[string]func(*Options){
		"no directory":  func(o *Options) { o.Dir = "" },
		"no guard":      func(o *Options) { o.Guard = nil },
		"no check":      func(o *Options) { o.Check = nil },
		"strange name":  func(o *Options) { o.Branch = "a..b" },
		"an option":     func(o *Options) { o.Branch = "--upload-pack=x" },
		"strange place": func(o *Options) { o.Dir = filepath.Join(t.TempDir(), "a\"b\n[core]") },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Error(name)
		}
	}
}
