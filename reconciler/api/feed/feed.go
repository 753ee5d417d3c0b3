package feed

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// sweepEvery is how often encodings are dropped that nobody wants.
	sweepEvery = 30 * time.Second
	// firstLimit bounds how long the first picture waits for the times of writes
	// of our own that the views have yet to deliver.
	firstLimit = time.Second
)

// Options are what a feed stands on. All but Logger is required.
type Options struct {
	Cache       *cache.Cache // empty; nobody else puts anything into it
	Desired     *kv.View[schema.Object]
	Assignments *kv.View[schema.Assignment]
	Actual      *kv.View[kv.Actual]
	Events      *kv.EventReader
	Logger      *slog.Logger // nil: slog.Default()
}

// A Feed keeps one cache. Run it.
type Feed struct {
	Options
	ready atomic.Bool

	// Of Run's goroutine:
	nodes  map[schema.PodKey][]schema.NodeName // that have an assignment of the pod, sorted
	bare   map[schema.ObjectKey]bool           // pods that stand in the repository
	spaces map[string]*space
	losses
	order
	first map[schema.ObjectKey]bool // until ready: all that is to be in the first picture
	since time.Time                 // until ready: when the views were whole
}

// A space is what is known of the objects in one namespace.
type space struct {
	count  int       // objects in the cache, and pods in the repository
	oldest time.Time // creation of the oldest one there was
}

// New makes a feed that has not begun.
func New(o Options) *Feed {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Feed{
		Options: o, nodes: map[schema.PodKey][]schema.NodeName{}, bare: map[schema.ObjectKey]bool{},
		spaces: map[string]*space{}, first: map[schema.ObjectKey]bool{},
		order:  newOrder(),
		losses: losses{grace: lossGrace, waiting: map[schema.ObjectKey]time.Time{}, gone: map[schema.ObjectKey]bool{}},
	}
}

// Ready says whether the first whole picture is in the cache. Before that an
// object that is missing there says nothing.
func (f *Feed) Ready() bool { return f.ready.Load() }

// Run feeds the cache until ctx is done, and then returns nil. It waits for the
// views to be whole first. What they lose later stays in the cache until they
// are whole again and it is really gone.
func (f *Feed) Run(ctx context.Context) error {
	n := f.subscribe()
	defer n.close()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	grace := time.NewTimer(f.patience(time.Now()))
	defer grace.Stop()
	tick := time.NewTimer(settle)
	defer tick.Stop()
	ticking := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			f.Cache.Sweep()
			continue
		case <-n.desired.C:
		case <-n.assignments.C:
		case <-n.actual.C:
		case <-n.events.C:
		case <-grace.C:
		case <-tick.C:
			ticking = false
			if f.Ready() {
				now := time.Now()
				f.step(n, now)
				grace.Reset(f.patience(now))
				if len(f.held) == 0 {
					continue
				}
			}
		}
		switch {
		case f.Ready() && !ticking:
			tick.Reset(settle)
			ticking = true
		case f.Ready():
		case f.whole() && f.begin(n, time.Now()):
			f.ready.Store(true)
			tick.Reset(settle)
			ticking = true
		default:
			grace.Reset(f.patience(time.Now()))
		}
	}
}

func (f *Feed) whole() bool {
	return f.Desired.Whole() && f.Assignments.Whole() && f.Actual.Whole() && f.Events.Whole()
}

// newest is when the newest message was stored that each of the views has been given.
func (f *Feed) newest() [4]time.Time {
	return [4]time.Time{f.Desired.Newest(), f.Assignments.Newest(), f.Actual.Newest(), f.Events.Newest()}
}

// news is what the views say has changed.
type news struct {
	desired, assignments, actual, events *kv.Changes
}

func (f *Feed) subscribe() news {
	return news{desired: f.Desired.Follow(), assignments: f.Assignments.Follow(), actual: f.Actual.Follow(), events: f.Events.Follow()}
}

func (n news) close() {
	n.desired.Close()
	n.assignments.Close()
	n.actual.Close()
	n.events.Close()
}

// touched is the objects that the changed keys are parts of. Events are left
// where they are while their reader is behind: it may be reading a stream anew.
func (f *Feed) touched(n news) map[schema.ObjectKey]bool {
	keys := map[schema.ObjectKey]bool{}
	for _, key := range n.desired.Drain() {
		if k, err := kv.ParseObjectKey(key); err == nil {
			f.noteBare(k, key)
			keys[k] = true
		}
	}
	for _, key := range n.assignments.Drain() {
		if node, pod, err := kv.ParseAssignmentKey(key); err == nil {
			f.noteAssignment(node, pod, key)
			keys[podObject(pod)] = true
		}
	}
	for _, key := range n.actual.Drain() {
		if k, err := kv.ParseObjectKey(key); err == nil {
			keys[k] = true
		}
	}
	if !f.Events.Whole() {
		return keys
	}
	for _, key := range n.events.Drain() {
		if k, err := kv.ParseObjectKey(key); err == nil {
			keys[k] = true
		}
	}
	return keys
}

func podObject(p schema.PodKey) schema.ObjectKey {
	return schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name}
}

// noteBare keeps which pods stand in the repository: they hold their namespace.
func (f *Feed) noteBare(k schema.ObjectKey, key string) {
	if k.Kind != schema.Pods {
		return
	}
	e, ok := f.Desired.Get(key)
	switch {
	case ok && !f.bare[k]:
		f.bare[k] = true
		f.enter(k, e.Value.GetCreationTimestamp().Time)
	case !ok && !f.Desired.Lost(key):
		f.dropBare(k)
	}
}

func (f *Feed) dropBare(k schema.ObjectKey) {
	if f.bare[k] {
		delete(f.bare, k)
		f.leave(k)
	}
}

// noteAssignment keeps which nodes have an assignment of a pod. One that the
// store has lost is kept, so that its loss is seen.
func (f *Feed) noteAssignment(node schema.NodeName, pod schema.PodKey, key string) {
	_, exists := f.Assignments.Get(key)
	exists = exists || f.Assignments.Lost(key)
	nodes := f.nodes[pod]
	at, known := slices.BinarySearch(nodes, node)
	switch {
	case exists && !known:
		nodes = slices.Insert(nodes, at, node)
	case !exists && known:
		nodes = slices.Delete(nodes, at, at+1)
	}
	if len(nodes) == 0 {
		delete(f.nodes, pod)
	} else {
		f.nodes[pod] = nodes
	}
}

// An answer is what an object is now.
type answer struct {
	key    schema.ObjectKey
	object schema.Object // nil: there is none
	stored time.Time
}

// begin loads the first whole picture, if every part of it has its time.
func (f *Feed) begin(n news, now time.Time) bool {
	maps.Copy(f.first, f.touched(n))
	if f.since.IsZero() {
		f.since = now
	}
	var answers []answer
	for k := range f.first {
		a, ok := f.compose(k)
		if !ok {
			if now.Sub(f.since) < firstLimit {
				return false
			}
			a.stored = now
		}
		if a.object != nil && k.Kind != schema.Namespaces {
			answers = append(answers, a)
		}
	}
	for _, a := range answers {
		f.enter(a.key, a.object.GetCreationTimestamp().Time)
	}
	spaces := map[string]bool{metav1.NamespaceDefault: true}
	for name := range f.spaces {
		spaces[name] = true
	}
	for k := range f.first {
		if k.Kind == schema.Namespaces {
			spaces[k.Name] = true
		}
	}
	for name := range spaces {
		if a, _ := f.namespace(name); a.object != nil {
			answers = append(answers, a)
		}
	}
	f.load(answers, now)
	f.first = nil
	return true
}

func (f *Feed) load(answers []answer, now time.Time) {
	objects := make([]cache.Loaded, len(answers))
	for i, a := range answers {
		objects[i] = cache.Loaded{Key: a.key, Object: a.object, Version: version(a.stored)}
	}
	for _, t := range f.newest() { // the store's clock may be ahead of ours
		now = later(now, t)
	}
	f.Cache.Load(objects, version(now))
	f.Logger.Debug("the API's first picture is whole", "objects", len(objects))
}

// version is the resourceVersion that stands for a moment; 0 for none.
func version(t time.Time) uint64 {
	if t.IsZero() || t.UnixNano() < 0 {
		return 0
	}
	return uint64(t.UnixNano())
}

// step takes in what changed: what is gone first, then what is there in the order
// in which it was stored, so that versions need not be raised.
func (f *Feed) step(n news, now time.Time) {
	keys := f.touched(n)
	for _, k := range f.overdue(now) {
		keys[k] = true
	}
	for k := range f.held {
		keys[k] = true
	}
	safe := f.safe(f.newest(), now)
	var answers []answer
	spaces := map[string]bool{}
	for k := range keys {
		if k.Kind == schema.Namespaces {
			spaces[k.Name] = true
			continue
		}
		if f.waitsForLost(k, now) {
			delete(f.held, k)
			continue
		}
		a, ok := f.compose(k)
		if ok && f.hold(a, safe, now) {
			continue
		}
		delete(f.held, k)
		if !ok {
			continue
		}
		answers = append(answers, a)
		if holdsNamespace(k) {
			spaces[k.Namespace] = true
		}
	}
	f.apply(answers)
	answers = answers[:0]
	for name := range spaces {
		if f.waitsForLost(schema.ObjectKey{Kind: schema.Namespaces, Name: name}, now) {
			continue
		}
		if a, ok := f.namespace(name); ok {
			answers = append(answers, a)
		}
	}
	f.apply(answers)
}

func (f *Feed) apply(answers []answer) {
	slices.SortFunc(answers, func(a, b answer) int {
		return cmp.Or(a.stored.Compare(b.stored), cmp.Compare(a.key.Kind, b.key.Kind),
			cmp.Compare(a.key.Namespace, b.key.Namespace), cmp.Compare(a.key.Name, b.key.Name))
	})
	for _, a := range answers { // those without an object have no time, and come first
		old, existed := f.Cache.Get(a.key)
		if a.object == nil {
			if existed {
				f.Cache.Delete(a.key, 0)
				f.leave(a.key)
			}
			continue
		}
		if existed && old.Object().GetUID() != a.object.GetUID() {
			f.Cache.Delete(a.key, 0) // another object of that name
		}
		if !existed {
			f.enter(a.key, a.object.GetCreationTimestamp().Time)
		}
		f.Cache.Put(a.key, a.object, version(a.stored))
	}
}

// compose says what an object is now. It is not ok when a part is known from our
// own write alone, so that its time is not known yet: the view will tell of it again.
func (f *Feed) compose(k schema.ObjectKey) (a answer, ok bool) {
	a.key = k
	switch k.Kind {
	case schema.Namespaces:
		return f.namespace(k.Name)
	case schema.Pods:
		return f.pod(k)
	case schema.Events:
		if e, ok := f.Events.Get(kv.ObjectKey(k)); ok {
			a.object, a.stored = composeEvent(part[*corev1.Event]{e.Value, e.Stored})
		}
		return a, true
	}
	key := kv.ObjectKey(k)
	desired, ok1 := partOf(f.Desired.Get(key))
	actual, ok2 := partOf(f.Actual.Get(key))
	switch {
	case k.Kind == schema.Revisions:
		if actual != nil && actual.value.Revision != nil {
			a.object, a.stored = composeRevision(part[*schema.RevisionRecord]{actual.value.Revision, actual.stored})
		}
	case k.Kind == schema.Nodes:
		if actual != nil && actual.value.Object != nil {
			a.object, a.stored = copyOf(actual.value.Object), actual.stored
		}
	default:
		var status *part[schema.Object]
		if actual != nil && actual.value.Object != nil {
			status = &part[schema.Object]{actual.value.Object, actual.stored}
		}
		a.object, a.stored = composeWorkload(desired, status)
	}
	return a, ok1 && ok2
}

// partOf is an entry of a view; nil when there is none. It is not ok when its
// time is not known yet.
func partOf[T any](e kv.Entry[T], exists bool) (*part[T], bool) {
	if !exists {
		return nil, true
	}
	return &part[T]{e.Value, e.Stored}, !e.Stored.IsZero()
}

func (f *Feed) pod(k schema.ObjectKey) (a answer, ok bool) {
	a.key, ok = k, true
	pod := schema.PodKey{Namespace: k.Namespace, Name: k.Name}
	var assigned []part[schema.Assignment]
	for _, n := range f.nodes[pod] {
		p, known := partOf(f.Assignments.Get(kv.AssignmentKey(n, pod)))
		ok = ok && known
		if p != nil {
			assigned = append(assigned, *p)
		}
	}
	actual, known := partOf(f.Actual.Get(kv.ObjectKey(k)))
	var report *part[schema.PodReport]
	if actual != nil && actual.value.Report != nil {
		report = &part[schema.PodReport]{*actual.value.Report, actual.stored}
	}
	if p, stored := composePod(assigned, report); p != nil {
		a.object, a.stored = p, stored
	}
	return a, ok && known
}

// namespace says what a namespace is now. Of one that is gone what is known of
// its objects is forgotten.
func (f *Feed) namespace(name string) (a answer, ok bool) {
	k := schema.ObjectKey{Kind: schema.Namespaces, Name: name}
	s := f.spaces[name]
	if s == nil {
		s = &space{}
	}
	oldest := s.oldest
	if name == metav1.NamespaceDefault {
		oldest = f.Desired.Since() // as old as the store
	}
	desired, ok := partOf(f.Desired.Get(kv.ObjectKey(k)))
	if s.count == 0 {
		delete(f.spaces, name)
	}
	o, stored := composeNamespace(name, desired, oldest, s.count > 0)
	return answer{k, o, stored}, ok
}

// holdsNamespace says whether an object keeps its namespace in being. An Event
// does not: it may be about what is long gone.
func holdsNamespace(k schema.ObjectKey) bool { return k.Namespace != "" && k.Kind != schema.Events }

func (f *Feed) enter(k schema.ObjectKey, created time.Time) {
	if !holdsNamespace(k) {
		return
	}
	s := f.spaces[k.Namespace]
	if s == nil {
		s = &space{}
		f.spaces[k.Namespace] = s
	}
	s.count++
	if !created.IsZero() && (s.oldest.IsZero() || created.Before(s.oldest)) {
		s.oldest = created
	}
}

func (f *Feed) leave(k schema.ObjectKey) {
	if s := f.spaces[k.Namespace]; s != nil && holdsNamespace(k) {
		s.count--
	}
}
