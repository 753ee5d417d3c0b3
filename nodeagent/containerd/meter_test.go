package containerd

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/pawl-project/pawl/nodeagent"
)

// cgroupFiles writes files below a directory that stands for a hierarchy.
func cgroupFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCounters(t *testing.T) {
	v1 := cgroupFiles(t, map[string]string{
		"c/cpuacct.usage":         "1234567890\n",
		"c/memory.usage_in_bytes": "10485760\n",
		"c/memory.stat":           "cache 1\ninactive_file 7\ntotal_inactive_file 4194304\ntotal_active_file 9\n",
		"odd/cpuacct.usage":       "5\n", "odd/memory.usage_in_bytes": "100\n", "odd/memory.stat": "total_inactive_file 200\n",
		"empty/cpuacct.usage": "", "empty/memory.usage_in_bytes": "", "empty/memory.stat": "",
	})
	v2 := cgroupFiles(t, map[string]string{
		"c/cpu.stat":       "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n",
		"c/memory.current": "10485760\n",
		"c/memory.stat":    "anon 1\nfile 2\ninactive_file 4194304\nactive_file 9\n",
		"cpu.stat":         "usage_usec 9000000\n",
	})
	h1 := host{cgroup: map[string]string{"cpu": v1, "cpuacct": v1, "memory": v1}}
	h2 := host{cgroup: map[string]string{"": v2}}
	for name, c := range map[string]struct {
		h    host
		path string
		want nodeagent.Counter
		err  error
	}{
		"v1":                       {h1, "/c", nodeagent.Counter{CPU: 1234567890, Memory: 6 << 20}, nil},
		"v1, more cache than used": {h1, "/odd", nodeagent.Counter{CPU: 5}, nil},
		"v1, not there":            {h1, "/no", nodeagent.Counter{}, fs.ErrNotExist},
		"v1, going":                {h1, "/empty", nodeagent.Counter{}, errEnded},
		"v2":                       {h2, "/c", nodeagent.Counter{CPU: 1234567000, Memory: 6 << 20}, nil},
		"v2, not there":            {h2, "/no", nodeagent.Counter{}, fs.ErrNotExist},
	} {
		var read cgroupReader
		got, err := c.h.counter(&read, c.path)
		if !errors.Is(err, c.err) || c.err == nil && got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	var read cgroupReader
	for name, h := range map[string]host{"v2": h2, "this machine": realHost(t)} {
		if c, err := h.machine(&read); err != nil || c.CPU == 0 || c.Memory == 0 || c.Memory > uint64(totalMemory()) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
}

func realHost(t *testing.T) host {
	t.Helper()
	cgroup, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	return host{cgroup: cgroup}
}

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:       24627244 kB\nMemFree:         3000 kB\nInactive(file):    4 kB\nInactive:  9 kB\nHugePages_Total:       2\nBig: 99999999999999999999 kB\nHuge: 2251799813685249 kB\n"
	for name, want := range map[string]uint64{
		"MemTotal": 24627244 << 10, "MemFree": 3000 << 10, "Inactive(file)": 4 << 10, "Inactive": 9 << 10, "None": 0, "Mem": 0, "Big": 0, "Huge": 0,
	} {
		if got := meminfo(text, name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

func FuzzCgroupFiles(f *testing.F) {
	for _, text := range []string{"", "max\n", "18446744073709551615\n", "18446744073709551616", "-1", "usage_usec 7\nuser_usec 3", "usage_usec\n", "usage_usec  8", "MemTotal: 1 kB\n", "MemTotal:\t\t9kB", "\x00\xff\n\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, ok := parseNumber(text); !ok && n != 0 {
			t.Errorf("no number, but %d", n)
		}
		if n, ok := parseField(text, "usage_usec"); ok && !strings.Contains(text, "usage_usec ") {
			t.Errorf("%d of no field", n)
		}
		if n := meminfo(text, "MemTotal"); n%1024 != 0 {
			t.Errorf("%d bytes are no kB", n)
		}
	})
}

func TestUpperOf(t *testing.T) {
	for want, mounts := range map[string][]mount.Mount{
		"/u": {{Type: "overlay", Options: []string{"index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"}}},
		"/b": {{Type: "bind", Source: "/b", Options: []string{"rw", "rbind"}}},
		"":   {{Type: "bind", Source: "/b", Options: []string{"ro", "rbind"}}},
	} {
		if got := upperOf(mounts); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
