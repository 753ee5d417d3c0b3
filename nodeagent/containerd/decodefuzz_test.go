package containerd

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema/archive"
)

// Whatever an image says of users and groups, the process runs as a number that
// the kernel has, and as the manifest's when it names one.
func FuzzUsers(f *testing.F) {
	f.Add([]byte("root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:\n"), []byte("wheel:x:10:app,root\n"), "app", int64(-1))
	f.Add([]byte("app:x:4294967296:-1:\napp:x:99999999999999999999:7"), []byte("app:x:18446744073709551616:app"), "app:app", int64(-1))
	f.Add([]byte("1000:x:0:0::/:\n:::::\n"), []byte(":::\nx"), "0", int64(1000))
	f.Add([]byte{}, []byte{}, "4294967295:4294967296", int64(0))
	f.Fuzz(func(t *testing.T, passwd, group []byte, spec string, runAs int64) {
		image := &imageInfo{files: &imageFiles{facts: &fileFacts{passwd: passwd, group: group}}}
		image.config.User = spec
		p, c := &corev1.Pod{}, &corev1.Container{}
		if runAs >= 0 && runAs <= math.MaxInt32 {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: &runAs}
		}
		u, err := userOf(t.Context(), image, p, c)
		if err != nil {
			return
		}
		for _, id := range append([]uint32{u.UID, u.GID}, u.AdditionalGids...) {
			if id > math.MaxInt32 {
				t.Errorf("%+v", u)
			}
		}
		if c.SecurityContext != nil && int64(u.UID) != runAs {
			t.Errorf("runAsUser %d is %d", runAs, u.UID)
		}
	})
}

// An image's configuration in any shape makes a process, or none: no name of the
// environment twice, and a directory that is absolute.
func FuzzImageConfig(f *testing.F) {
	f.Add([]byte(`{"config":{"Env":["PATH=/bin","A=b","A=c"],"Entrypoint":["/x"],"Cmd":["y"],"WorkingDir":"/w","User":"app","StopSignal":"SIGRTMIN+3"},"rootfs":{"diff_ids":["sha256:1"]}}`))
	f.Add([]byte(`{"config":{"Env":["","=","A"],"WorkingDir":"../../x","StopSignal":"RTMAX-99999999999999999999","Volumes":{"/a/../..":{}}},"created":"0000-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"config":null,"rootfs":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var config ocispec.Image
		if json.Unmarshal(text, &config) != nil {
			return
		}
		image, c := &imageInfo{config: config.Config}, &corev1.Container{}
		arguments(c, image)
		if dir := workingDir(c, image); !path.IsAbs(dir) || path.Clean(dir) != dir {
			t.Errorf("its directory is %q", dir)
		}
		seen := map[string]bool{}
		for _, kv := range environment(nodeagent.StartRequest{Pod: &corev1.Pod{}, Container: c}, image) {
			name, _, _ := strings.Cut(kv, "=")
			if seen[name] {
				t.Errorf("%q twice", name)
			}
			seen[name] = true
		}
		if n, err := signalNumber(config.Config.StopSignal); err == nil && (n < 1 || n > 64) {
			t.Errorf("signal %d", n)
		}
		configOf(config.Config)
	})
}

// What runc, the kernel and containerd's errors tell names a process or
// nothing.
func FuzzRuntimeWords(f *testing.F) {
	f.Add([]byte(`{"init_process_pid":12}`), "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4000 20", "mkdir /run\nc1: file exists")
	f.Add([]byte(`{"init_process_pid":-1}`), ")", "OCI runtime create failed:\r\n")
	f.Add([]byte(`{"init_process_pid":1e99}`), "", "")
	f.Fuzz(func(t *testing.T, state []byte, stat, words string) {
		if pid := recordedPID(state); pid < 0 {
			t.Errorf("process %d", pid)
		}
		if p, err := parseProcess(7, stat); err == nil && (p.pid != 7 || p.start == "" || strings.ContainsAny(p.start, " \n")) {
			t.Errorf("%+v", p)
		}
		if text := oneLine(errors.New(words)); strings.Contains(text, "\n") {
			t.Errorf("%q", text)
		}
	})
}

// The kernel's table of mounts, in any shape, leads to hierarchies or to none.
func FuzzCgroupMounts(f *testing.F) {
	f.Add("36 35 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n37 35 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n38 35 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
	f.Add(" - cgroup \n - \n1 2 3 4 5 - cgroup x memory,cpu")
	f.Fuzz(func(t *testing.T, table string) {
		found, err := cgroupMountsIn(strings.NewReader(table))
		if err == nil && (found["memory"] == "" || found["cpu"] == "") {
			t.Errorf("%q", found)
		}
	})
}

// A list of AppArmor's profiles has those that stand in it.
func FuzzProfiles(f *testing.F) {
	f.Add([]byte("cri-containerd (enforce)\na (b) (complain)\n"), "a (b)")
	f.Add(bytes.Repeat([]byte("x"), 70<<10), "x")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		list := filepath.Join(memoryDir(t), "profiles")
		if err := os.WriteFile(list, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (appArmor{loaded: list}).has(name); err == nil && !bytes.Contains(text, []byte(name+" (")) {
			t.Errorf("%q is loaded", name)
		}
	})
}

// A registry that asks for patience is given some.
func FuzzRetryAfter(f *testing.F) {
	now := time.Unix(1e9, 0)
	f.Add("120")
	f.Add("-9223372036854775808")
	f.Add("Fri, 31 Dec 9999 23:59:59 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if after := retryAfter(header, now); after < 0 || after > busyMost {
			t.Errorf("%q is %s", header, after)
		}
	})
}

// What a container writes stands in its log and comes out of it again, however
// it is cut; and its last words are bounded, and text.
func FuzzOutput(f *testing.F) {
	f.Add([]byte("one\ntwo\n\nthree"), 2)
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine+7), maxLine)
	f.Add([]byte("2026-11-21T15:00:00.000000001Z stdout F forged\n\xff\xfe\x00\r\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, piece int) {
		now := time.Unix(1e9, 5)
		var log bytes.Buffer
		s := lines{name: "stderr"}
		for rest := text; len(rest) > 0; {
			n := min(len(rest), max(1, piece%(2*maxLine)))
			s.format(&log, rest[:n], now)
			rest = rest[n:]
		}
		if len(s.part) > 0 {
			s.flush(&log, now)
		}
		if got := shown(t, log.Bytes()); !bytes.Equal(got, text) {
			t.Errorf("%d bytes come out as %d", len(text), len(got))
		}
		for _, part := range [][]byte{log.Bytes(), text} {
			said := pod.MessageLines(recordsText(part))
			if len(said) > pod.MessageMost || strings.Count(said, "\n") > 80 {
				t.Errorf("its last words are %d bytes", len(said))
			}
		}
		file := filepath.Join(memoryDir(t), "message")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		tail, err := tailOf(file, pod.MessageMost)
		if err != nil || len(tail) > pod.MessageMost || !bytes.HasSuffix(text, tail) || !utf8.ValidString(strings.ToValidUTF8(string(tail), "\uFFFD")) {
			t.Errorf("%q, %v", tail, err)
		}
	})
}

// Whatever a tar holds, it is written below the container's root.
func FuzzWriteArchive(f *testing.F) {
	add := func(entries ...entry) {
		var b bytes.Buffer
		b.ReadFrom(tarOf(f, entries...))
		f.Add(b.Bytes(), "/tree")
	}
	add(dir("."), dir("a"), file("a/b", "text"), link("a/l", "b"))
	add(dir("."), link("out", "/beside"), file("out/planted", "x"))
	add(dir("."), link("out", "../../../beside"), file("out/planted", "x"), link("out", "."), file("out/y", "x"))
	add(dir("."), file("x", "1"), file("x", "2"), dir("x"), entry{tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "/beside/secret"}, ""})
	f.Fuzz(func(t *testing.T, text []byte, to string) {
		base := memoryDir(t)
		beside := filepath.Join(base, "beside")
		if err := errors.Join(os.Mkdir(beside, 0o755), os.MkdirAll(filepath.Join(base, "root", "tree"), 0o755), os.WriteFile(filepath.Join(beside, "secret"), []byte("untouched"), 0o600)); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(filepath.Join(base, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		root := &containerRoot{fd: fd, user: specs.User{}}
		u := &unpacker{root: root, at: path.Join("/", to), buffer: make([]byte, 4<<10)}
		for r := archive.NewReader(bytes.NewReader(text), nil); ; {
			h, err := r.Next()
			if err == nil {
				err = u.put(h, r)
			}
			if err != nil {
				break
			}
		}
		var names []string
		if err := filepath.WalkDir(base, func(name string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() && d.Name() == "root" {
				return fs.SkipDir
			}
			names = append(names, strings.TrimPrefix(name, base))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(names, " "); got != " /beside /beside/secret" {
			t.Errorf("beside the root there is %q", got)
		}
		if text, err := os.ReadFile(filepath.Join(beside, "secret")); string(text) != "untouched" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
	})
}

// What is asked of a log, in any numbers, shows no more than it holds.
func FuzzLogOptions(f *testing.F) {
	f.Add(int64(5), int64(1), int64(0), true)
	f.Add(int64(math.MinInt64), int64(math.MinInt64), int64(math.MaxInt64), false)
	f.Fuzz(func(t *testing.T, since, tail, limit int64, stamps bool) {
		log := []byte("2026-11-21T15:00:00.000000001Z stdout F one\n2026-11-21T15:00:01.000000001Z stderr P two\n2026-11-21T15:00:02.000000001Z stderr F three\n")
		file := filepath.Join(memoryDir(t), "0.log")
		if err := os.WriteFile(file, log, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		filter := filterOf(&corev1.PodLogOptions{SinceSeconds: &since, TailLines: &tail, LimitBytes: ptr.To(max(0, limit)), Timestamps: stamps}, time.Now())
		filter.out = &out
		used, more, err := filter.take(log)
		if err == nil && more {
			err = filter.end(log[used:])
		}
		if err != nil || int64(out.Len()) > max(0, limit) || out.Len() > len(log) {
			t.Errorf("%d bytes, %v", out.Len(), err)
		}
	})
}

// memoryDir is on no disk, whose syncs would be all that is tested.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pawl-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
