package kv

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	// eventsMost and eventBytesMost bound what a reader holds; the oldest go first.
	eventsMost     = 2_000
	eventBytesMost = 2 << 20
	// eventHeartbeat is after how long without a sign the reading begins anew, twice.
	eventHeartbeat = 10 * time.Second
	// eventBatch is how many events are asked for at once.
	eventBatch = 256
)

// An EventReader holds the newest Events of the stream in memory: those stored
// when it began, then those that come. Of several with one namespace and name
// the newest stands. An Event goes when the stream's age limit has passed since
// it was stored, or when there are too many. It is safe for use by several
// goroutines.
//
// Its keys are those of ObjectKey, of kind events.
type EventReader struct {
	store *Store
	log   *slog.Logger
	age   time.Duration // how long an Event is kept

	mu      sync.RWMutex
	entries map[string]*list.Element // of order
	order   *list.List               // of *heldEvent, by the time they were stored
	bytes   int
	whole   bool
	changes map[*Changes]struct{}

	// Of Run's goroutine:
	last    uint64    // sequence of the newest message that was read
	created time.Time // when the stream was made
}

type heldEvent struct {
	entry Entry[*corev1.Event]
	size  int
}

// NewEventReader makes a reader; Run fills it.
func NewEventReader(s *Store) *EventReader {
	return &EventReader{
		store: s, log: s.conn.log.With("stream", EventStream), age: eventMaxAge,
		entries: map[string]*list.Element{}, order: list.New(), changes: map[*Changes]struct{}{},
	}
}

// Whole says whether all that was stored has been read. As with a view, it is
// false again from a loss of the stream until it is caught up with.
func (r *EventReader) Whole() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.whole
}

// Get returns the Event of a key.
func (r *EventReader) Get(key string) (Entry[*corev1.Event], bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	x, ok := r.entries[key]
	if !ok {
		return Entry[*corev1.Event]{Key: key}, false
	}
	return x.Value.(*heldEvent).entry, true
}

// All yields the Events in the order in which they were stored.
func (r *EventReader) All() iter.Seq[Entry[*corev1.Event]] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]Entry[*corev1.Event], 0, len(r.entries))
	for x := r.order.Front(); x != nil; x = x.Next() {
		all = append(all, x.Value.(*heldEvent).entry)
	}
	return slices.Values(all)
}

// Newest is when the newest Event it holds was stored; zero when there is none.
func (r *EventReader) Newest() time.Time {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if x := r.order.Back(); x != nil {
		return x.Value.(*heldEvent).entry.Stored
	}
	return time.Time{}
}

// Follow returns news of the reader, beginning with every key that it holds.
// Close it when done.
func (r *EventReader) Follow() *Changes {
	ch := make(chan struct{}, 1)
	s := &Changes{C: ch, c: ch, keys: map[string]struct{}{}, follows: true}
	s.close = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.changes, s)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.entries {
		s.keys[k] = struct{}{}
	}
	if r.whole || len(s.keys) > 0 {
		signal(ch)
	}
	r.changes[s] = struct{}{}
	return s
}

// Run reads until ctx is done, and then returns nil. It begins again by itself,
// from where it was, whenever the stream is lost.
func (r *EventReader) Run(ctx context.Context) error {
	news := r.store.conn.Reconnected()
	defer news.Close()
	defer r.setWhole(false)
	expiry := make(chan struct{})
	go func() {
		defer close(expiry)
		r.expire(ctx)
	}()
	defer func() { <-expiry }()
	for failures := 0; ctx.Err() == nil; {
		started := time.Now()
		err := r.read(ctx)
		r.setWhole(false)
		if ctx.Err() != nil {
			break
		}
		failures++
		if time.Since(started) > time.Minute {
			failures = 0
		}
		r.log.Debug("events lost, reading on", "error", err)
		r.rest(ctx, news.C, failures)
	}
	return nil
}

// rest waits with growing pauses, or until the connection is back.
func (r *EventReader) rest(ctx context.Context, news <-chan struct{}, failures int) {
	d := min(10*time.Millisecond<<min(failures, 10), 5*time.Second)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-t.C:
			t.Reset(time.Second)
		}
		if r.store.conn.Connected() {
			return
		}
	}
}

// read takes in what the stream holds from where the last reading ended, and
// then what comes, until the stream is lost.
func (r *EventReader) read(ctx context.Context) error {
	ctx, cancel := r.store.conn.whileConnected(ctx, forEver)
	defer cancel()
	consumer, pending, err := r.open(ctx)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(eventBatch), jetstream.PullExpiry(2*eventHeartbeat), jetstream.PullHeartbeat(eventHeartbeat))
	if err != nil {
		return unavailable(fmt.Errorf("read %s: %w", EventStream, cause(ctx, err)))
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	if pending == 0 {
		r.setWhole(true)
	}
	for expected := uint64(1); ; expected++ {
		m, err := messages.Next()
		if err != nil {
			return unavailable(fmt.Errorf("read %s: %w", EventStream, cause(ctx, err)))
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", EventStream, err)
		}
		if meta.Sequence.Consumer != expected {
			return fmt.Errorf("read %s: message %d came where %d should: %w", EventStream, meta.Sequence.Consumer, expected, schema.ErrUnavailable)
		}
		r.take(m, meta)
		r.last = meta.Sequence.Stream
		if meta.NumPending == 0 {
			r.setWhole(true)
		}
	}
}

// open makes a consumer that begins behind what was read, and not further back
// than the reader holds. It says how much there is to read. A stream that was
// made anew is read from its beginning; what the old one held is forgotten.
func (r *EventReader) open(ctx context.Context) (jetstream.Consumer, uint64, error) {
	limited, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	stream, err := r.store.conn.js.Stream(limited, EventStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		r.log.Warn("the stream of events is gone, making it anew")
		if err = r.store.ensure(ctx, eventConfig(r.store.options.Replicas)); err == nil {
			stream, err = r.store.conn.js.Stream(limited, EventStream)
		}
	}
	if err != nil {
		return nil, 0, unavailable(fmt.Errorf("open %s: %w", EventStream, cause(ctx, err)))
	}
	info := stream.CachedInfo()
	if !info.Created.Equal(r.created) || info.State.LastSeq < r.last {
		r.forget()
		r.created, r.last = info.Created, 0
	}
	from := max(r.last+1, info.State.FirstSeq, 1)
	if info.State.LastSeq >= eventsMost {
		from = max(from, info.State.LastSeq-eventsMost+1)
	}
	consumer, err := stream.CreateConsumer(limited, jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, 0, unavailable(fmt.Errorf("read %s: %w", EventStream, cause(ctx, err)))
	}
	return consumer, consumer.CachedInfo().NumPending, nil
}

// take puts one message in. One that cannot be read is left out.
func (r *EventReader) take(m jetstream.Msg, meta *jetstream.MsgMetadata) {
	e := new(corev1.Event)
	err := json.Unmarshal(m.Data(), e)
	if err == nil && (e.Name == "" || e.Namespace == "") {
		err = errors.New("it has no name or no namespace")
	}
	if err != nil {
		r.log.Warn("event cannot be read", "subject", m.Subject(), "sequence", meta.Sequence.Stream, "error", err)
		return
	}
	r.put(e, meta.Sequence.Stream, meta.Timestamp, len(m.Data()))
}

func (r *EventReader) put(e *corev1.Event, sequence uint64, stored time.Time, size int) {
	info, _ := schema.LookupKind(schema.Events)
	e.SetGroupVersionKind(info.GVK)
	key := ObjectKey(schema.ObjectKey{Kind: schema.Events, Namespace: e.Namespace, Name: e.Name})
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.entries[key]; old != nil {
		r.remove(old)
	}
	r.entries[key] = r.order.PushBack(&heldEvent{Entry[*corev1.Event]{Key: key, Value: e, Revision: sequence, Stored: stored}, size})
	r.bytes += size
	r.changed(key)
	for len(r.entries) > eventsMost || r.bytes > eventBytesMost {
		r.changed(r.remove(r.order.Front()))
	}
}

// remove returns the key of what it removes. r.mu is held.
func (r *EventReader) remove(x *list.Element) string {
	held := r.order.Remove(x).(*heldEvent)
	delete(r.entries, held.entry.Key)
	r.bytes -= held.size
	return held.entry.Key
}

// forget removes everything.
func (r *EventReader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.order.Len() > 0 {
		r.changed(r.remove(r.order.Front()))
	}
}

// expire removes what is too old, until ctx is done.
func (r *EventReader) expire(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			t.Reset(r.expireOnce(time.Now()))
		}
	}
}

// expirePause is the longest time between two looks at what is too old, and the
// shortest is a thousandth of it.
const expirePause = time.Minute

// expireOnce returns when to look again.
func (r *EventReader) expireOnce(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.order.Len() > 0 {
		oldest := r.order.Front()
		left := oldest.Value.(*heldEvent).entry.Stored.Add(r.age).Sub(now)
		if left > 0 {
			return min(max(left, expirePause/1000), expirePause)
		}
		r.changed(r.remove(oldest))
	}
	return min(r.age, expirePause)
}

func (r *EventReader) setWhole(whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.whole == whole {
		return
	}
	r.whole = whole
	for s := range r.changes {
		signal(s.c)
	}
}

// changed notes a key for every follower and wakes them. r.mu is held.
func (r *EventReader) changed(key string) {
	for s := range r.changes {
		s.note(key, true, true)
		signal(s.c)
	}
}
