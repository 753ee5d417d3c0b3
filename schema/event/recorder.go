package event

import (
	"container/list"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// The bounds are those of Kubernetes' event correlator.
const (
	// burst and refill are an object's allowance: so many Events at once, and
	// then one each refill. What is held back is still counted.
	burst  = 25
	refill = 5 * time.Minute
	// differing is how many messages one reason may have within foldWindow; the
	// others are folded into one Event.
	differing  = 10
	foldWindow = 10 * time.Minute
	// forgetAfter is after how long without a repetition the count begins anew.
	forgetAfter = time.Hour

	objectsMost = 4096 // remembered; the one that was silent longest goes
	sortsMost   = 32   // kinds of news remembered of one object
)

// Folded begins the message of an Event that stands for several.
const Folded = "(combined from similar events): "

// A News is one thing that happened to one object.
type News struct {
	About   corev1.ObjectReference
	Type    string // corev1.EventTypeNormal or EventTypeWarning
	Reason  string // CamelCase, as Kubernetes names it
	Message string // one sentence, for people; made fit to be shown
}

// A Recorder makes Events of News. It is for one goroutine.
type Recorder struct {
	source  corev1.EventSource
	objects map[identity]*list.Element // of *object
	silent  *list.List                 // the object that spoke last is at the front
	held    uint64
}

// identity names an object; a pod made anew under a name is another.
type identity struct{ kind, namespace, name, uid string }

type object struct {
	id       identity
	allowed  float64   // Events that may be told at once
	credited time.Time // when allowed was last counted up
	sorts    map[sort]*similar
}

// A sort is what one object says for one reason.
type sort struct{ typ, reason, field string }

// similar is the Events of one sort.
type similar struct {
	tallies map[string]*tally // by message
	folded  *tally
	last    time.Time
}

// A tally is one Event in the making.
type tally struct {
	name        string
	first, last time.Time
	count       int32
}

// NewRecorder returns a recorder for one emitter: component is who speaks, host
// the node it speaks from, "" for none.
func NewRecorder(component, host string) *Recorder {
	return &Recorder{
		source:  corev1.EventSource{Component: component, Host: host},
		objects: map[identity]*list.Element{}, silent: list.New(),
	}
}

// Held is how many Events were held back since the start.
func (r *Recorder) Held() uint64 { return r.held }

// Record returns the Event to tell: a new one, or one that was told before with
// a higher count. It is not ok when the object has said too much lately.
func (r *Recorder) Record(n News, now time.Time) (e corev1.Event, ok bool) {
	n.Message = Text(n.Message)
	o := r.object(n.About, now)
	s := o.sort(sort{n.Type, n.Reason, n.About.FieldPath}, now)
	t, message := s.tally(n.Message, now)
	t.count++
	t.last, s.last = now, now
	if t.name == "" {
		t.first = now
		t.name = r.name(n, message, now)
	}
	if !o.spend(now) {
		r.held++
		return corev1.Event{}, false
	}
	return r.event(n, message, t), true
}

// object finds what is remembered of an object and notes that it speaks.
func (r *Recorder) object(ref corev1.ObjectReference, now time.Time) *object {
	id := identity{ref.Kind, ref.Namespace, ref.Name, string(ref.UID)}
	if at := r.objects[id]; at != nil {
		r.silent.MoveToFront(at)
		return at.Value.(*object)
	}
	o := &object{id: id, allowed: burst, credited: now, sorts: map[sort]*similar{}}
	r.objects[id] = r.silent.PushFront(o)
	if r.silent.Len() > objectsMost {
		last := r.silent.Back()
		r.silent.Remove(last)
		delete(r.objects, last.Value.(*object).id)
	}
	return o
}

func (o *object) sort(k sort, now time.Time) *similar {
	if s := o.sorts[k]; s != nil && now.Sub(s.last) < forgetAfter {
		return s
	}
	if len(o.sorts) >= sortsMost {
		delete(o.sorts, o.oldest())
	}
	o.sorts[k] = &similar{tallies: map[string]*tally{}}
	return o.sorts[k]
}

// oldest is the sort that was told longest ago. No two speak at one time but in
// one breath, where any of them will do: by name.
func (o *object) oldest() (k sort) {
	var found *similar
	for key, s := range o.sorts {
		if found == nil || s.last.Before(found.last) || s.last.Equal(found.last) && before(key, k) {
			k, found = key, s
		}
	}
	return k
}

func before(a, b sort) bool { return a.typ+a.reason+a.field < b.typ+b.reason+b.field }

// tally finds the Event that a message is counted with, and how it is worded.
func (s *similar) tally(message string, now time.Time) (*tally, string) {
	for m, t := range s.tallies {
		if now.Sub(t.last) >= forgetAfter || m != message && now.Sub(t.last) >= foldWindow {
			delete(s.tallies, m)
		}
	}
	if t := s.tallies[message]; t != nil {
		return t, message
	}
	if len(s.tallies) < differing {
		t := &tally{}
		s.tallies[message] = t
		return t, message
	}
	if s.folded == nil || now.Sub(s.folded.last) >= forgetAfter {
		s.folded = &tally{}
	}
	return s.folded, Text(Folded + message)
}

// spend takes one Event off the object's allowance.
func (o *object) spend(now time.Time) bool {
	if since := now.Sub(o.credited); since > 0 {
		o.allowed = min(burst, o.allowed+float64(since)/float64(refill))
		o.credited = now
	}
	if o.allowed < 1 {
		return false
	}
	o.allowed--
	return true
}

// name is <object>.<hex>: everything that the Event is, and when it began, so
// that neither another emitter nor the next run of this one finds it again.
func (r *Recorder) name(n News, message string, now time.Time) string {
	h := sha256.New()
	for _, part := range []string{
		r.source.Component, r.source.Host, n.About.Kind, n.About.Namespace, n.About.Name, string(n.About.UID),
		n.About.FieldPath, n.Type, n.Reason, message, strconv.FormatInt(now.UnixNano(), 10),
	} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return Name(n.About.Name, hex.EncodeToString(h.Sum(nil)[:8]))
}

func (r *Recorder) event(n News, message string, t *tally) corev1.Event {
	namespace := n.About.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: t.name, CreationTimestamp: metav1.NewTime(t.first),
			UID: UID(namespace, t.name),
		},
		InvolvedObject:      n.About,
		Reason:              n.Reason,
		Message:             message,
		Type:                n.Type,
		FirstTimestamp:      metav1.NewTime(t.first),
		LastTimestamp:       metav1.NewTime(t.last),
		Count:               t.count,
		Source:              r.source,
		ReportingController: r.source.Component,
		ReportingInstance:   r.source.Host,
	}
}

// Refer is the reference to an object whose uid follows from its name.
func Refer(k schema.ObjectKey) corev1.ObjectReference {
	ref := corev1.ObjectReference{Namespace: k.Namespace, Name: k.Name, UID: schema.UIDOf(k)}
	if i, ok := schema.LookupKind(k.Kind); ok {
		ref.APIVersion, ref.Kind = i.GVK.ToAPIVersionAndKind()
	}
	return ref
}
