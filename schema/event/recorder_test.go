package event

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func about(name string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: name, UID: types.UID("uid-" + name), FieldPath: "spec.containers{web}"}
}

func backOff(name string) News {
	return News{About: about(name), Type: corev1.EventTypeWarning, Reason: "BackOff", Message: "Back-off restarting failed container web in pod " + name}
}

func TestWhatHappensAgainIsCounted(t *testing.T) {
	r := NewRecorder("nodeagent", "n1")
	var first corev1.Event
	for i := range 5 {
		now := begin.Add(time.Duration(i) * time.Minute)
		e, ok := r.Record(backOff("web-1"), now)
		if !ok {
			t.Fatalf("the %d. is held back", i+1)
		}
		if i == 0 {
			first = e
		}
		if e.Name != first.Name || e.UID != first.UID || e.Count != int32(i+1) || !e.FirstTimestamp.Time.Equal(begin) || !e.LastTimestamp.Time.Equal(now) {
			t.Errorf("the %d. is %s ×%d from %s to %s, the first is %s", i+1, e.Name, e.Count, e.FirstTimestamp, e.LastTimestamp, first.Name)
		}
	}
	if err := Check(&first, begin); err != nil {
		t.Error(err)
	}
	if first.Source != (corev1.EventSource{Component: "nodeagent", Host: "n1"}) || first.ReportingController != "nodeagent" || first.ReportingInstance != "n1" {
		t.Errorf("who speaks: %+v %s %s", first.Source, first.ReportingController, first.ReportingInstance)
	}
	// Another pod of the name, another container, another message: another Event.
	names := map[string]bool{first.Name: true}
	other := backOff("web-1")
	other.About.UID = "uid-of-its-successor"
	side := backOff("web-1")
	side.About.FieldPath = "spec.containers{side}"
	why := backOff("web-1")
	why.Message = "otherwise"
	for _, n := range []News{other, side, why} {
		if e, ok := r.Record(n, begin); !ok || names[e.Name] || e.Count != 1 {
			t.Errorf("%+v is counted as %s ×%d", n, e.Name, e.Count)
		} else {
			names[e.Name] = true
		}
	}
	// After a long silence the count begins anew, and so it does in another run.
	if e, _ := r.Record(backOff("web-1"), begin.Add(3*time.Hour)); e.Count != 1 || e.Name == first.Name {
		t.Errorf("after three hours: %s ×%d", e.Name, e.Count)
	}
	if e, _ := NewRecorder("nodeagent", "n1").Record(backOff("web-1"), begin.Add(time.Nanosecond)); e.Name == first.Name {
		t.Error("another run has the name of the first")
	}
}

func TestWhatIsAlikeIsFolded(t *testing.T) {
	r := NewRecorder("reconciler", "")
	names := map[string]bool{}
	var last corev1.Event
	for i := range 20 {
		n := News{About: Refer(schema.ObjectKey{Kind: schema.ReplicaSets, Namespace: "default", Name: "web"}), Type: corev1.EventTypeNormal, Reason: "SuccessfulCreate", Message: fmt.Sprint("Created pod: web-", i)}
		e, ok := r.Record(n, begin)
		if !ok {
			t.Fatalf("the %d. is held back", i+1)
		}
		names[e.Name] = true
		last = e
	}
	if len(names) != differing+1 || last.Count != 20-differing || last.Message != Folded+"Created pod: web-19" {
		t.Errorf("%d Events, the last is %s ×%d", len(names), last.Message, last.Count)
	}
}

func TestAnObjectThatSaysTooMuchIsHeldBack(t *testing.T) {
	r := NewRecorder("reconciler", "")
	told := 0
	for range 100 {
		if _, ok := r.Record(backOff("web-1"), begin); ok {
			told++
		}
	}
	if told != burst || r.Held() != 100-burst {
		t.Errorf("told %d, held back %d", told, r.Held())
	}
	if _, ok := r.Record(backOff("web-2"), begin); !ok {
		t.Error("another object is held back as well")
	}
	if e, ok := r.Record(backOff("web-1"), begin.Add(refill)); !ok || e.Count != 101 {
		t.Errorf("later it is told: %v, ×%d", ok, e.Count)
	}
	if _, ok := r.Record(backOff("web-1"), begin.Add(refill)); ok {
		t.Error("the allowance came back whole")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := NewRecorder("reconciler", "")
	for i := range 3 * objectsMost {
		r.Record(backOff(fmt.Sprint("web-", i)), begin.Add(time.Duration(i)*time.Millisecond))
	}
	if len(r.objects) != objectsMost || r.silent.Len() != objectsMost {
		t.Errorf("%d objects are remembered", len(r.objects))
	}
	for i := range 10 * sortsMost {
		for j := range 3 * differing {
			n := backOff("web")
			n.Reason, n.Message = fmt.Sprint("Reason", i), fmt.Sprint(j)
			r.Record(n, begin.Add(time.Hour))
		}
	}
	o := r.objects[identity{"Pod", "default", "web", "uid-web"}].Value.(*object)
	if len(o.sorts) != sortsMost {
		t.Errorf("%d kinds of news are remembered of one object", len(o.sorts))
	}
	for k, s := range o.sorts {
		if len(s.tallies) > differing {
			t.Errorf("%v has %d messages", k, len(s.tallies))
		}
	}
}

func TestMessagesAreFitToBeShown(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                    "plain",
		"a\nb\tc\r\n":              "a b c",
		"bell\x07 and \x1b[31mred": "bell and [31mred",
		"bad \xff utf":             "bad  utf",
		"turn \u202e around":       "turn  around",
	} {
		if got := Text(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	for _, s := range []string{strings.Repeat("x", 5000), strings.Repeat("ä", 700), strings.Repeat("\x00", 9000) + "end"} {
		if got := Text(s); len(got) > MessageMost || !utf8.ValidString(got) || Text(got) != got {
			t.Errorf("%d bytes become %d, %q…", len(s), len(got), got[:min(len(got), 20)])
		}
	}
}

func TestCheckRefusesWhatNoRecorderMakes(t *testing.T) {
	for what, change := range map[string]func(*corev1.Event){
		"name of another":   func(e *corev1.Event) { e.Name = "web-2.1f" },
		"no suffix":         func(e *corev1.Event) { e.Name = "web-1" },
		"long suffix":       func(e *corev1.Event) { e.Name = "web-1.0123456789abcdef0" },
		"type":              func(e *corev1.Event) { e.Type = "Odd" },
		"reason":            func(e *corev1.Event) { e.Reason = "has blanks" },
		"long reason":       func(e *corev1.Event) { e.Reason = strings.Repeat("A", 200) },
		"field":             func(e *corev1.Event) { e.InvolvedObject.FieldPath = "spec.containers{../x}" },
		"terminal codes":    func(e *corev1.Event) { e.Message = "\x1b[2J" },
		"long message":      func(e *corev1.Event) { e.Message = strings.Repeat("x", MessageMost+1) },
		"count":             func(e *corev1.Event) { e.Count = 0 },
		"no time":           func(e *corev1.Event) { e.FirstTimestamp = metav1.Time{} },
		"ends before":       func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(begin.Add(-time.Hour)) },
		"far in the future": func(e *corev1.Event) { e.LastTimestamp = metav1.NewTime(begin.Add(48 * time.Hour)) },
	} {
		e, _ := NewRecorder("nodeagent", "n1").Record(backOff("web-1"), begin)
		if err := Check(&e, begin); err != nil {
			t.Fatal(err)
		}
		change(&e)
		if err := Check(&e, begin); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	r := NewRecorder("reconciler", "")
	i := 0
	for b.Loop() {
		i++
		r.Record(News{About: about(fmt.Sprint("web-", i)), Type: corev1.EventTypeNormal, Reason: "Scheduled", Message: "Successfully assigned default/web to n1"}, begin)
	}
}
