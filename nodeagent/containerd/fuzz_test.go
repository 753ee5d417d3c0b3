package containerd

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	coreevents "github.com/containerd/containerd/v2/core/events"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// A record whose labels somebody spoilt is read as far as it goes, and belongs to
// nobody else's instance. What is stamped is read again.
func FuzzLabels(f *testing.F) {
	f.Add("i", "u", "1", "2026-11-21T15:00:00.000000001Z", "137", "true")
	f.Add("", "", "-9999999999999999999", "0000", "x", "\x00")
	f.Fuzz(func(t *testing.T, instance, uid, count, at, code, flag string) {
		rec, ok := recordOf(containers.Container{ID: "c", Labels: map[string]string{
			labelInstance: instance, labelUID: uid, labelAttempt: count, labelBackoff: count, labelStarted: at, labelFinished: at,
			labelStopRequested: at, labelExitCode: code, labelInit: flag, labelOOMKilled: flag, labelTTY: flag, labelStdin: flag,
		}}, "i")
		if ok != (instance == "i" && uid != "") {
			t.Fatalf("of instance %q, pod %q: %v", instance, uid, ok)
		}
		if !ok {
			return
		}
		if rec.uid != types.UID(uid) || rec.ended != (code != "") || rec.Init != (flag == "true") {
			t.Errorf("read %+v", rec)
		}
		if !rec.StartedAt.IsZero() && rec.StartedAt.Year() > 0 && rec.StartedAt.Year() < 9999 && !moment(stamp(rec.StartedAt)).Equal(rec.StartedAt) {
			t.Errorf("%q is %s", at, rec.StartedAt)
		}
	})
}

// A sandbox's record is the pod's or none.
func FuzzSandboxRecord(f *testing.F) {
	f.Add([]byte(`{"uid":"u","namespace":"default","name":"a","ip":"10.0.0.2","createdAt":"2026-11-21T15:00:00Z"}`))
	f.Add([]byte(`{"uid":"v"}`))
	f.Add([]byte(`{"uid":"u","users":2000683008}`))
	f.Add([]byte(`{"uid":"u","users":1000}`)) // people of the node
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decodeSandbox(text, "u")
		if err != nil {
			return
		}
		if s.Users != 0 && (s.Users < 2_000_683_008 || s.Users%65536 != 0 || s.Users >= 2_000_683_008+2238*65536) {
			t.Errorf("users beginning at %d", s.Users)
		}
		if s.UID != "u" {
			t.Errorf("of pod %q", s.UID)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if s2, err := decodeSandbox(again, "u"); err != nil || s2.key() != s.key() || len(s2.kinds()) != len(s.kinds()) {
			t.Errorf("read again: %+v, %v", s2, err)
		}
	})
}

// Whatever stands in a log, reading it ends, shows no more than is there, and the
// last lines of it are the end of all of it.
func FuzzLog(f *testing.F) {
	f.Add([]byte("2026-11-21T15:00:00.000000001Z stdout F one\n2026-11-21T15:00:00.000000002Z stderr P tw\n2026-11-21T15:00:00.000000003Z stderr F o\n"), int64(1))
	f.Add([]byte("spoilt\n\n\n2026-11-21T15:00:00Z stdout F\n2026-11-21T15:00:00Z stdout X x"), int64(3))
	f.Add(bytes.Repeat([]byte("2026-11-21T15:00:00Z stdout P x\n"), 100), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, text []byte, last int64) {
		whole := shown(t, text)
		if len(whole) > len(text) {
			t.Errorf("%d bytes are shown as %d", len(text), len(whole))
		}
		fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "log")
		defer file.Close()
		if _, err := file.Write(text); err != nil {
			t.Fatal(err)
		}
		finder := tailFinder{want: max(last, 0)}
		start, found, err := finder.search(file, int64(len(text)))
		if err != nil || start < 0 || start > int64(len(text)) {
			t.Fatalf("begins at %d of %d, %v", start, len(text), err)
		}
		if tail := shown(t, text[start:]); found && !bytes.HasSuffix(whole, tail) {
			t.Errorf("the last %d lines are %q of %q", last, tail, whole)
		}
	})
}

func shown(t *testing.T, text []byte) []byte {
	var out bytes.Buffer
	filter := filterOf(&corev1.PodLogOptions{}, time.Now())
	filter.out = &out
	used, _, err := filter.take(text)
	if err == nil {
		err = filter.end(text[used:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What the kernel tells of processes and cgroups is read, or refused, whatever it is.
func FuzzKernelFiles(f *testing.F) {
	f.Add("12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4000 20", "99.5 100\n", "oom_kill 3\nlow 0\n", "oom_kill")
	f.Add("12 (x", "NaN", "max\n", "max")
	f.Add(") 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 9223372036854775807 20", "1e308", "MemTotal:  99999999999999999999 kB\n", "MemTotal")
	f.Fuzz(func(t *testing.T, stat, uptime, file, name string) {
		if age, err := processAge(stat, uptime); err == nil && (age < 0 || age > maxAge) {
			t.Errorf("a process of age %s", age)
		}
		if n, ok := parseNumber(file); ok && strings.TrimSpace(file) == "" {
			t.Errorf("%q is %d", file, n)
		}
		if _, ok := parseField(file, name); ok && !strings.Contains(file, name+" ") {
			t.Errorf("%q has the field %q", file, name)
		}
		if n := meminfo(file, name); n > 0 && !strings.Contains(file, name+":") {
			t.Errorf("%q has the field %q", file, name)
		}
		isShimOf(strings.Split(stat, " "), uptime)
	})
}

// An event that is none of ours, or that nobody can read, wakes nobody.
func FuzzEvents(f *testing.F) {
	f.Add("containerd.events.TaskExit", []byte("\x0a\x01c\x12\x01c"))
	f.Add("containerd.events.TaskStart", []byte("\x0a\x01c"))
	f.Add("containerd.events.TaskOOM", []byte("\x0a\x01d"))
	f.Add("nope", []byte{0xff})
	f.Fuzz(func(t *testing.T, kind string, value []byte) {
		r := &Runtime{records: map[string]*record{"c": {Container: pod.Container{ID: "c"}, uid: "u"}}}
		e := &coreevents.Envelope{Topic: "/tasks/exit", Event: &anypb.Any{TypeUrl: kind, Value: value}}
		r.event(e, func(uid types.UID) {
			if uid != "u" {
				t.Errorf("wakes %q", uid)
			}
		})
		if isMark(e, "mark") && !bytes.Contains(value, []byte("mark")) {
			t.Error("is a mark")
		}
	})
}
