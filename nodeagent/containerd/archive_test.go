package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/archive"
	"github.com/pawl-project/pawl/schema/kv"
)

// says runs a command in a container and returns what it prints.
func (g *rig) says(id, script string) string {
	g.tb.Helper()
	var out bytes.Buffer
	if _, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: sh(script), Stdout: &out, Stderr: &out}); err != nil {
		g.tb.Fatalf("%s: %v", script, err)
	}
	return out.String()
}

// An entry is one of a tar, with what it holds.
type entry struct {
	tar.Header
	text string
}

func file(name, text string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640}, text}
}
func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o750}, ""}
}
func link(name, target string) entry {
	return entry{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// tarOf is a tar of entries, as they are.
func tarOf(tb testing.TB, entries ...entry) io.Reader {
	tb.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Format = tar.FormatPAX
		if h.Size == 0 {
			h.Size = int64(len(e.text))
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			tb.Fatal(err)
		}
		if h.Size > int64(len(e.text)) {
			return &b // it breaks off
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return &b
}

// copied is what a container has at a path, by name, and what it warns of.
func (g *rig) copied(id, path string) (all map[string]string, warnings []string, err error) {
	var b bytes.Buffer
	if err := g.rt.ReadArchive(g.ctx, id, path, &b); err != nil {
		return nil, nil, err
	}
	all = map[string]string{}
	r := archive.NewReader(&b, func(s string) { warnings = append(warnings, s) })
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, warnings, nil
		}
		if err != nil {
			return all, warnings, err
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return all, warnings, err
		}
		all[h.Name] = fmt.Sprintf("%c %o %d:%d %s%s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, text)
	}
}

// What is copied in has its owner, its mode and what it holds, and comes out
// again as it is, whatever its name.
func TestArchive(t *testing.T) {
	g := newRig(t)
	_, id := g.running("files")
	setuid, odd, owned := file("run", "program"), file("line\nbreak \xff", "odd"), file("d/owned", "mine")
	setuid.Mode, owned.Uid, owned.Gid, owned.Mode = 0o4755, 1234, 99, 0o400
	tree := []entry{dir("."), dir("d"), dir("d/empty"), setuid, odd, owned, link("l", "d/owned"), link("out", "../../../etc"), file("twice", "first"), file("twice", "second")}
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/new", Base: "tree"}, tarOf(t, tree...)); err != nil {
		t.Fatal(err)
	}
	got, warnings, err := g.copied(id, "/new")
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%q, %v", warnings, err)
	}
	for name, want := range map[string]string{
		".": "5 750 0:0 ", "d": "5 750 0:0 ", "d/empty": "5 750 0:0 ", "run": "0 4755 0:0 program", "line\nbreak \xff": "0 640 0:0 odd",
		"d/owned": "0 400 1234:99 mine", "l": "2 777 0:0 d/owned", "out": "2 777 0:0 ../../../etc", "twice": "0 640 0:0 second",
	} {
		if got[name] != want {
			t.Errorf("%q: %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 9 {
		t.Errorf("%q", got)
	}
	// Into a directory it goes by its name, and over what is there that is no directory.
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/new", Base: "l", NoPreserve: true}, tarOf(t, file(".", "over a link"))); err != nil {
		t.Fatal(err)
	}
	if text := g.says(id, "cat /new/l /new/d/owned; stat -c %a /new/l"); text != "over a linkmine640\n" {
		t.Errorf("%q", text)
	}
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/etc/hosts"}, tarOf(t, file(".", "127.0.0.1 mine\n"))); err != nil {
		t.Errorf("over what is mounted: %v", err)
	}
	if text := g.says(id, "cat /etc/hosts"); text != "127.0.0.1 mine\n" {
		t.Errorf("/etc/hosts is %q", text)
	}
}

// What cannot be read or written is refused, in words.
func TestArchiveRefused(t *testing.T) {
	g := newRig(t)
	p, id := g.running("files")
	g.says(id, "mkdir /d; mkfifo /pipe; ln -s loop /loop; echo x > /file")
	for path, want := range map[string]error{
		"/nosuch": schema.ErrNotFound, "/file/below": schema.ErrNotFound, "/pipe": schema.ErrRefused, "/dev/null": schema.ErrRefused,
		"/dev/zero": schema.ErrRefused, "/loop": schema.ErrRefused, "/proc/1/root/etc": schema.ErrRefused, "/proc/1/exe": schema.ErrRefused,
	} {
		var b bytes.Buffer
		err := g.rt.ReadArchive(g.ctx, id, path, &b)
		if !errors.Is(err, want) || b.Len() > 0 || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	hard := entry{tar.Header{Typeflag: tar.TypeLink, Name: "x", Linkname: "/etc/passwd"}, ""}
	device := entry{tar.Header{Typeflag: tar.TypeBlock, Name: "x", Devmajor: 8}, ""}
	cut := file("x", "half")
	cut.Size = 1 << 40
	for name, c := range map[string]struct {
		to      string
		entries []entry
		want    string
	}{
		"no directory":         {"/nosuch/x", []entry{file(".", "x")}, "/nosuch: no such file or directory"},
		"a directory's name":   {"/file/", []entry{file(".", "x")}, "/file/: not a directory"},
		"over a device":        {"/dev/null", []entry{file(".", "x")}, "/dev/null: no such device or address"},
		"over a directory":     {"/", []entry{dir("."), file("d", "x")}, "/d: is a directory"},
		"up":                   {"/d", []entry{dir("."), file("../x", "x")}, `"../x" leads out of the tree`},
		"absolute":             {"/d", []entry{dir("."), file("/x", "x")}, `"/x" leads out of the tree`},
		"a hard link":          {"/d", []entry{dir("."), hard}, `"x" is a hard link`},
		"a device":             {"/d", []entry{dir("."), device}, `"x" is a device or a pipe`},
		"no first entry":       {"/d", []entry{file("x", "x")}, "is out of place"},
		"it breaks off":        {"/d", []entry{dir("."), cut}, "unexpected EOF"},
		"a name of a file":     {"/d", []entry{dir("."), file("f", "x"), file("f/g", "x")}, "/d/f: not a directory"},
		"longer than any name": {"/d", []entry{dir("."), file(strings.Repeat("n", 300), "x")}, "file name too long"},
		"a magic link":         {"/proc/1/cwd/x", []entry{file(".", "x")}, "too many levels of symbolic links"},
	} {
		err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: c.to}, tarOf(t, c.entries...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if text := g.says(id, "ls /"); strings.Contains(text, "x\n") {
		t.Errorf("%s", text)
	}
	endless := file(".", "")
	endless.Size = 1 << 50
	err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/dev/shm/x"}, io.MultiReader(tarOf(t, endless), zeros{}))
	if err == nil || err.Error() != "/dev/shm/x: no space left on device" {
		t.Errorf("more than there is room for: %v", err)
	}
	g.says(id, "rm /dev/shm/x")
	if err := g.rt.Signal(g.ctx, id, "KILL", time.Now()); err != nil {
		t.Fatal(err)
	}
	p.exit()
	if err := g.rt.ReadArchive(g.ctx, id, "/", io.Discard); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("of a container that has ended: %v", err)
	}
}

// A container whose user is not root gets no rights by it.
func TestArchiveAsTheContainersUser(t *testing.T) {
	g := newRig(t)
	p := g.pod("user")
	c := p.add("main", "sleep", "100000")
	c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To[int64](1000), RunAsGroup: ptr.To[int64](1000)}
	p.sandbox()
	id := p.start("main", 0).ID
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/etc"}, tarOf(t, dir("."), file("mine", "x"))); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("into root's directory: %v", err)
	}
	rootly := file(".", "x")
	rootly.Mode = 0o4755
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/tmp/mine"}, tarOf(t, rootly)); err != nil {
		t.Fatal(err)
	}
	if text := g.says(id, "stat -c '%u:%g %a' /tmp/mine"); text != "1000:1000 755\n" {
		t.Errorf("it is %q", text)
	}
	state, err := g.rt.client.TaskService().Get(g.ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/hush", state.Process.Pid), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.rt.ReadArchive(g.ctx, id, "/hush", io.Discard); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("a file of root: %v", err)
	}
}

// However a container moves its links meanwhile, they lead nowhere on the host.
func TestArchiveLinkRaces(t *testing.T) {
	g := newRig(t)
	_, id := g.running("race")
	host := t.TempDir() // such a path is not in the container
	if err := os.WriteFile(filepath.Join(host, "secret"), []byte("the host's"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(g.ctx)
	racing := make(chan struct{})
	go func() {
		defer close(racing)
		g.rt.Command(ctx, id, nodeagent.Command{Argv: sh(fmt.Sprintf(
			"mkdir -p /work/real; ln -s %s /work/link; echo inside > /work/real/secret; while :; do mv -T /work/real /work/at; mv -T /work/at /work/real; mv -T /work/link /work/at; mv -T /work/at /work/link; done", host))})
	}()
	defer func() { cancel(); <-racing }()
	pollEach(t, 5*time.Millisecond, "it races", func() bool {
		return g.rt.ReadArchive(g.ctx, id, "/work/at", io.Discard) == nil
	})
	began, read, wrote := time.Now(), 0, 0
	for time.Since(began) < 3*time.Second || (read == 0 || wrote == 0) && time.Since(began) < patience {
		for _, path := range []string{"/work", "/work/at", "/work/at/secret", "/work/link/secret"} {
			if got, _, err := g.copied(id, path); err == nil {
				read++
				if strings.Contains(fmt.Sprint(got), "the host's") {
					t.Fatalf("%s reads the host's file", path)
				}
			}
		}
		if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/work"}, tarOf(t, dir("."), dir("at"), file("at/planted", "x"), file("at/secret", "planted"))); err == nil {
			wrote++
		}
	}
	t.Logf("%d reads and %d writes", read, wrote)
	if read == 0 || wrote == 0 {
		t.Errorf("%d reads and %d writes", read, wrote)
	}
	if text, err := os.ReadFile(filepath.Join(host, "secret")); string(text) != "the host's" || err != nil {
		t.Errorf("the host's file is %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(host, "planted")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("planted on the host: %v", err)
	}
}

// A link that a tar brings is followed in the container alone.
func TestArchiveLinkOfATar(t *testing.T) {
	g := newRig(t)
	_, id := g.running("links")
	host := t.TempDir()
	up := strings.Repeat("../", 20) + host
	for name, target := range map[string]string{"absolute": host, "relative": up} {
		err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/tmp"}, tarOf(t, dir("."), link(name, target), file(name+"/planted", "x")))
		if !errors.Is(err, schema.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, err := os.ReadDir(host); len(left) > 0 || err != nil {
		t.Errorf("on the host: %v, %v", left, err)
	}
	// The same path in the container is the container's.
	g.says(id, "mkdir -p "+host)
	if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/tmp"}, tarOf(t, dir("."), file("absolute/planted", "x"))); err != nil {
		t.Error(err)
	}
	if text := g.says(id, "cat "+host+"/planted"); text != "x" {
		t.Errorf("in the container: %q", text)
	}
	if left, err := os.ReadDir(host); len(left) > 0 || err != nil {
		t.Errorf("on the host: %v, %v", left, err)
	}
}

// A tree without a bottom, one that is changed meanwhile, and pipes in it hold
// nobody up.
func TestArchiveOddTrees(t *testing.T) {
	g := newRig(t)
	_, id := g.running("odd")
	g.says(id, "mkdir /deep; cd /deep; i=0; while [ $i -lt 700 ]; do mkdir d; cd d; i=$((i+1)); done; mkdir /odd; mkfifo /odd/pipe; echo x > /odd/x; ln -s /nowhere /odd/l")
	before := g.counts()
	got, warnings, err := g.copied(id, "/deep")
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "more than 500 directories") || len(got) != 501 {
		t.Errorf("%d directories, %.200q, %v", len(got), warnings, err)
	}
	got, warnings, err = g.copied(id, "/odd")
	if err != nil || len(got) != 3 || len(warnings) != 1 || !strings.Contains(warnings[0], "pipe: left out") {
		t.Errorf("%q, %q, %v", got, warnings, err)
	}
	ctx, cancel := context.WithCancel(g.ctx)
	changing := make(chan struct{})
	go func() {
		defer close(changing)
		g.rt.Command(ctx, id, nodeagent.Command{Argv: sh("while :; do dd if=/dev/zero of=/odd/grows bs=64k count=64 2>/dev/null; : > /odd/grows; mkdir -p /odd/d/e; : > /odd/d/e/f; rm -rf /odd/d; done")})
	}()
	for range 60 {
		if _, _, err := g.copied(id, "/odd"); err != nil {
			t.Errorf("while it changes: %v", err)
		}
	}
	cancel()
	<-changing
	g.asBefore(t, before)
}

// A client that goes, and a file system that does not answer, end the copy.
func TestArchiveWithoutItsClient(t *testing.T) {
	g := newRig(t)
	_, id := g.running("gone")
	g.says(id, "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null")
	before := g.counts()
	gone := errors.New("gone")
	for range 20 {
		if err := g.rt.ReadArchive(g.ctx, id, "/big", failing{gone}); !errors.Is(err, gone) {
			t.Fatalf("a reader that is gone: %v", err)
		}
		if err := g.rt.WriteArchive(g.ctx, id, kv.ArchiveRequest{Path: "/tmp/x"}, failing{gone}); !errors.Is(err, gone) {
			t.Fatalf("a writer that is gone: %v", err)
		}
	}
	g.asBefore(t, before)
	ctx, cancel := context.WithCancel(g.ctx)
	answer := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- g.rt.inContainer(ctx, id, func(*containerRoot) error { cancel(); <-answer; return nil })
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, schema.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("files that do not answer: %v", err)
		}
	case <-time.After(patience):
		t.Error("files that do not answer hold the agent")
	}
	close(answer)
	g.asBefore(t, before)
}

// failing fails.
type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }
func (f failing) Read([]byte) (int, error)  { return 0, f.error }
