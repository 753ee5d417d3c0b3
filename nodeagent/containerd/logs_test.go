package containerd

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

func TestLogFormat(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	const stamp = "2026-01-02T03:04:05.000000006Z stdout "
	long := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		in   []string
		want []string
	}{
		"lines":             {[]string{"a\nb\n"}, []string{"F a", "F b"}},
		"empty line":        {[]string{"\n"}, []string{"F "}},
		"in pieces":         {[]string{"he", "llo\nwor", "ld\n"}, []string{"F hello", "F world"}},
		"no end":            {[]string{"a\nb"}, []string{"F a", "P b"}},
		"just fits":         {[]string{long + "\n"}, []string{"F " + long}},
		"too long":          {[]string{long + "y\n"}, []string{"P " + long, "F y"}},
		"too long, pieces":  {[]string{long[:maxLine-1], "xy\nz\n"}, []string{"P " + long, "F y", "F z"}},
		"twice as long":     {[]string{long + long + "z"}, []string{"P " + long, "P " + long, "P z"}},
		"carriage returns":  {[]string{"a\r\nb\r"}, []string{"F a\r", "P b\r"}},
		"zero bytes":        {[]string{"a\x00b\n"}, []string{"F a\x00b"}},
		"long, end follows": {[]string{long, "\n"}, []string{"P " + long, "F "}},
	} {
		s := lines{name: "stdout"}
		var b bytes.Buffer
		for _, p := range c.in {
			s.format(&b, []byte(p), now)
		}
		if len(s.part) > 0 {
			s.flush(&b, now)
		}
		want := stamp + strings.Join(c.want, "\n"+stamp) + "\n"
		if b.String() != want {
			t.Errorf("%s: got %.200q, want %.200q", name, b.String(), want)
		}
	}
}

var logLine = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] `)

// A container that writes without end fills five files of 10 MiB, and each line
// is whole.
func TestLogRotation(t *testing.T) {
	g := newRig(t)
	p := g.pod("chatty")
	p.add("main", "sh", "-c", "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -n 700000; echo the end")
	c, _ := p.run()
	var total int64
	for i := range logFiles {
		info, err := os.Stat(rotated(c.LogPath, i))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxLogFile || i > 0 && info.Size() < maxLogFile-2*readSize {
			t.Errorf("%s has %d bytes", info.Name(), info.Size())
		}
		total += info.Size()
	}
	if _, err := os.Stat(rotated(c.LogPath, logFiles)); err == nil {
		t.Error("more files than that are kept")
	}
	newest, err := os.ReadFile(c.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(newest)) {
		if !logLine.MatchString(line) || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %q", line)
		}
	}
	if !strings.HasSuffix(string(newest), "stdout F the end\n") {
		t.Errorf("the log ends with %q", newest[max(0, len(newest)-100):])
	}
	p.remove()
	if left, err := filepath.Glob(filepath.Join(g.opts.DataDir, "logs", "pods", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A container goes on writing when the agent is killed, waits when its pipes are
// full, and nothing of it is lost.
func TestLogOverARestart(t *testing.T) {
	g := newRig(t)
	p := g.pod("writer")
	p.add("main", "sh", "-c", "for i in $(seq 30000); do echo line $i; done; echo done; sleep 1000")
	p.sandbox()
	c := p.start("main", 0)
	eventually(t, "it writes", func() bool { info, err := os.Stat(c.LogPath); return err == nil && info.Size() > 0 })
	g.shut()
	// Until its pipes are full it goes on; then it waits, and lives.
	pid := g.pidOf(c.ID)
	eventually(t, "it waits", func() bool { return state(t, pid) == "S" })
	g.open()
	if s := p.look(); s.Containers[0].State != pod.ContainerRunning {
		t.Fatalf("seen %+v", s)
	}
	eventually(t, "all is in the log", func() bool { return strings.Contains(readLog(t, c.LogPath), "done\n") })
	if now := g.pidOf(c.ID); now != pid {
		t.Errorf("pid %d, before %d", now, pid)
	}
	var want strings.Builder
	for i := range 30000 {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	if got := readLog(t, c.LogPath); got != want.String()+"done\n" {
		t.Errorf("the log holds %d bytes, want %d", len(got), want.Len()+5)
	}
}

// state is a process's, as in ps.
func state(tb testing.TB, pid int) string {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
}

func (g *rig) pidOf(id string) int {
	g.tb.Helper()
	c, err := dial(g.opts.Address)
	if err != nil {
		g.tb.Fatal(err)
	}
	defer c.Close()
	task, err := (&Runtime{client: c}).process(g.ctx, id)
	if err != nil || task == nil {
		g.tb.Fatalf("task of %s: %v, %v", id, task, err)
	}
	if err := syscall.Kill(int(task.Pid), 0); err != nil {
		g.tb.Fatalf("process %d of %s: %v", task.Pid, id, err)
	}
	return int(task.Pid)
}

// A log that cannot be written must not stop the container.
func TestLogThatCannotBeWritten(t *testing.T) {
	g := newRig(t)
	p := g.pod("unlucky")
	p.add("main", "sh", "-c", "yes | head -n 200000; exit 6")
	p.sandbox()
	dir := filepath.Dir(g.rt.logPath(podKey(p), p.UID, "main", 0))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	p.start("main", 0)
	if c := p.exit(); c.ExitCode != 6 {
		t.Errorf("seen %+v", c)
	}
}

// TestLongestNames: names may be longer together than a file's may be.
func TestLongestNames(t *testing.T) {
	g := newRig(t)
	p := g.pod("long")
	p.Namespace, p.Name = strings.Repeat("s", 63), strings.Repeat("n", 253)
	p.add(strings.Repeat("c", 63), "echo", "hello")
	if c, out := p.run(); c.ExitCode != 0 || !strings.Contains(out, "hello") {
		t.Errorf("%+v wrote %q", c, out)
	}
	p.remove()
	if left, err := os.ReadDir(g.rt.logRoot()); err != nil || len(left) > 0 {
		t.Errorf("left of its logs: %v, %v", left, err)
	}
}
