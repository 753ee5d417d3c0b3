package containerd

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// tinyDisk is a file system of so many bytes and files, its root included.
func tinyDisk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func testLogWriter(t *testing.T, path string) *logWriter {
	t.Helper()
	w, err := openLogWriter(path, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func (w *logWriter) line(text string) {
	w.write(func(b *bytes.Buffer) {
		b.WriteString("2026-01-02T03:04:05.000000006Z stdout F " + text + "\n")
	})
}

// A record that was cut off, by a kill or a full disk, does not swallow the one
// after it.
func TestRecordThatIsCutOff(t *testing.T) {
	const cut = "2026-01-02T03:04:05.000000006Z stdout F ha"
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(cut), 0o640); err != nil {
		t.Fatal(err)
	}
	testLogWriter(t, path).line("next")
	if got := readLog(t, path); got != "ha\nnext\n" {
		t.Errorf("after a kill: %q", got)
	}

	dir := tinyDisk(t, "size=16k")
	path = filepath.Join(dir, "0.log")
	w := testLogWriter(t, path)
	for w.file != nil && !w.failed {
		w.line(strings.Repeat("x", 59)) // 100 bytes a record: the disk is full in the midst of one
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.HasSuffix(raw, []byte("\n")) {
		t.Fatalf("no record is cut off: this tests nothing (%v)", err)
	}
	if err := unix.Mount("", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	w.line("next")
	w.line("last")
	if got := readLog(t, path); !bytes.HasSuffix([]byte(got), []byte("\nnext\nlast\n")) {
		t.Errorf("after a full disk: it ends with %q", got[max(0, len(got)-120):])
	}
}

// A log that cannot be begun anew, because the disk takes no more files, loses
// none of its older parts for it, and is known as that of a container that ran.
func TestRotationWithoutRoom(t *testing.T) {
	dir := tinyDisk(t, "size=64m,nr_inodes=5") // the folder, the log, two parts of it, and one more
	path := filepath.Join(dir, "0.log")
	for n := range 3 {
		if err := os.WriteFile(rotated(path, n), []byte(strconv.Itoa(n)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxLogFile); err != nil {
		t.Fatal(err)
	}
	w := testLogWriter(t, path)
	for range 10 {
		w.line("lost")
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	w.line("again")
	if got := readLog(t, path); got != "again\n" {
		t.Errorf("the log holds %q", got)
	}
	for n := 1; n < 3; n++ {
		if raw, err := os.ReadFile(rotated(path, n+1)); err != nil || string(raw) != strconv.Itoa(n) {
			t.Errorf("part %d is gone: %v", n, err)
		}
	}
	if !started(record{Container: containerWithLog(path)}) {
		t.Error("its container counts as never started")
	}
}

// An agent that is killed between two steps of a rotation leaves no log, or one
// without its mark; the container ran all the same.
func TestKilledWhileItRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(rotated(path, 1), nil, logStarted); err != nil {
		t.Fatal(err)
	}
	if !started(record{Container: containerWithLog(path)}) {
		t.Error("without a log it counts as never started")
	}
	testLogWriter(t, path)
	if !started(record{Container: containerWithLog(path)}) {
		t.Error("with a new log it counts as never started")
	}
}

func containerWithLog(path string) pod.Container { return pod.Container{LogPath: path} }

// A log that somebody removed is begun anew as that of a container that ran.
func TestLogThatWasRemoved(t *testing.T) {
	g := newRig(t)
	p := g.pod("removed")
	p.add("main", "sleep", "1000")
	p.sandbox()
	c := p.start("main", 0)
	g.shut()
	if err := os.Remove(c.LogPath); err != nil {
		t.Fatal(err)
	}
	g.open()
	p.look()
	if !started(record{Container: containerWithLog(c.LogPath)}) {
		t.Error("the container counts as never started")
	}
	p.remove()
}

// What a container wrote last, before anybody looked after a restart of the agent,
// is still in its pipes and goes into its log.
func TestLastWordsBeforeTheFirstLook(t *testing.T) {
	g := newRig(t)
	p := g.pod("last")
	p.add("main", "sh", "-c", "trap 'echo farewell; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
	p.sandbox()
	c := p.start("main", 0)
	eventually(t, "it is ready", func() bool { return readLog(t, c.LogPath) == "ready\n" })
	g.shut()
	g.open()
	if err := g.rt.load(g.ctx); err != nil {
		t.Fatal(err)
	}
	signal(t, g.pidOf(c.ID), unix.SIGTERM)
	awaitEnd(t, c.ID)
	if seen := p.look().Containers[0]; seen.State != pod.ContainerExited || seen.ExitCode != 3 {
		t.Errorf("seen %+v", seen)
	}
	if got := p.output(c); got != "ready\nfarewell\n" {
		t.Errorf("the log holds %q", got)
	}
	p.remove()
}
