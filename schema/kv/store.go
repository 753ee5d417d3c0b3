package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

const (
	// markerTTL is how long a delete marker stays: far longer than any view is
	// away, so that a view that comes back can tell a deletion from a loss.
	markerTTL = time.Hour
	// asyncWindow is how many writes may wait for their acknowledgement.
	asyncWindow = 4096

	eventMaxAge   = 2 * time.Hour
	eventMaxBytes = 64 << 20
	leaseMaxBytes = 256 << 20 // what nodes take is in there too; the gateway keeps that far below
)

// StoreOptions say how the store is kept.
type StoreOptions struct {
	Replicas int // servers that hold each bucket; 0: 1
}

// A Store writes the buckets. It is safe for use by several goroutines.
type Store struct {
	conn    *Conn
	options StoreOptions
	markers markers
	ttl     time.Duration // of delete markers

	troubles troubles

	mu      sync.Mutex
	missing map[chan struct{}]Bucket // to be told when a bucket is found to be gone
}

// OpenStore makes the buckets and the stream of events, or brings their
// settings up to date; what they hold is kept. The error wraps
// schema.ErrUnavailable when the server does not answer.
func OpenStore(ctx context.Context, c *Conn, o StoreOptions) (*Store, error) {
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	s := &Store{conn: c, options: o, markers: markers{known: map[string]marker{}}, ttl: markerTTL, missing: map[chan struct{}]Bucket{}}
	for _, b := range []Bucket{Desired, Assignments, Actuals, Leases} {
		if err := s.ensure(ctx, bucketConfig(b, o.Replicas)); err != nil {
			return nil, err
		}
	}
	if err := s.ensure(ctx, eventConfig(o.Replicas)); err != nil {
		return nil, err
	}
	return s, nil
}

// onMissing has c signalled when a write finds that the bucket is gone.
func (s *Store) onMissing(b Bucket, c chan struct{}) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing[c] = b
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.missing, c)
	}
}

// noteMissing tells who watches a bucket if err says that it is gone: a watch
// finds that out by itself only after 20 seconds.
func (s *Store) noteMissing(b Bucket, err error) {
	if !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, of := range s.missing {
		if of == b {
			signal(c)
		}
	}
}

// ensure makes a stream, or updates it where its settings differ. Settings that
// are right are left alone: a server killed while it writes them cannot read the
// stream any more.
func (s *Store) ensure(ctx context.Context, want jetstream.StreamConfig) error {
	ctx, cancel := s.conn.whileConnected(ctx, 30*time.Second)
	defer cancel()
	stream, err := s.conn.js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = s.conn.js.CreateStream(ctx, want)
	case err == nil && !sameSettings(stream.CachedInfo().Config, want):
		_, err = s.conn.js.UpdateStream(ctx, want)
	}
	if err != nil {
		return unavailable(fmt.Errorf("open %s: %w", want.Name, cause(ctx, err)))
	}
	return nil
}

// sameSettings compares what we set, and not what the server adds to it.
func sameSettings(have, want jetstream.StreamConfig) bool {
	want.Metadata, have.Metadata = nil, nil
	want.Duplicates = have.Duplicates
	want.PersistMode = have.PersistMode // which cannot be changed
	return reflect.DeepEqual(have, want)
}

// bucketConfig is a KV bucket as nats.go lays it out, with these differences:
// no roll-ups, because one message with a roll-up header wipes the bucket;
// batches; and one value per key, because when a delete marker expires an older
// value must not come back.
//
// Only leases expire by themselves, and for that to be seen the server has to
// write markers, with which it insists on roll-ups. What they could wipe there
// is rebuilt within seconds.
func bucketConfig(b Bucket, replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:               streamOf(b),
		Description:        "Pawl: see the store's map in schema/kv/layout.go",
		Subjects:           []string{subjectOf(b, ">")},
		MaxMsgsPerSubject:  1,
		MaxBytes:           -1,
		MaxAge:             0,
		MaxMsgs:            -1,
		MaxConsumers:       -1,
		MaxMsgSize:         -1,
		Storage:            jetstream.FileStorage,
		Replicas:           replicas,
		Discard:            jetstream.DiscardNew, // a full store refuses writes; it forgets nothing
		AllowRollup:        false,
		DenyDelete:         true,
		AllowDirect:        true,
		AllowAtomicPublish: true,
		AllowMsgTTL:        true, // for delete markers and leases
	}
	if b == Leases {
		c.Storage = jetstream.MemoryStorage
		c.MaxBytes = leaseMaxBytes
		c.SubjectDeleteMarkerTTL = time.Minute
		c.AllowRollup = true
	}
	return c
}

func eventConfig(replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:        EventStream,
		Description: "Pawl: Events of objects, the newest two hours",
		Subjects:    []string{"pawl.events.>"},
		MaxAge:      eventMaxAge,
		MaxMsgs:     -1, MaxConsumers: -1, MaxMsgSize: -1,
		MaxBytes: eventMaxBytes,
		// A subject is one Event: when it happened again the new count takes the
		// place of the old one.
		MaxMsgsPerSubject: 1,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Discard:           jetstream.DiscardOld,
		DenyDelete:        true,
	}
	if replicas == 1 {
		// News may be lost with the machine: no write waits for the disk. The server
		// has this for streams without replicas only.
		c.PersistMode = jetstream.AsyncPersistMode
	}
	return c
}

func streamOf(b Bucket) string { return "KV_" + string(b) }

func subjectOf(b Bucket, key string) string { return "$KV." + string(b) + "." + key }

// Publish appends events to the stream of events. Events are news: an error,
// which wraps schema.ErrUnavailable, means that some may be lost.
func (s *Store) Publish(ctx context.Context, events []corev1.Event) error {
	ctx, cancel := s.conn.whileConnected(ctx, requestLimit)
	defer cancel()
	acks := make([]jetstream.PubAckFuture, 0, len(events))
	for i := range events {
		e := &events[i]
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode event %s: %w", e.Name, err)
		}
		ack, err := s.conn.js.PublishMsgAsync(&nats.Msg{Subject: EventSubject(involved(e), e.Name), Data: text},
			jetstream.WithStallWait(requestLimit))
		if err != nil {
			return unavailable(fmt.Errorf("publish event %s: %w", e.Name, err))
		}
		acks = append(acks, ack)
	}
	var first error
	for i, ack := range acks {
		if _, err := await(ctx, ack); err != nil && first == nil {
			first = unavailable(fmt.Errorf("publish event %s: %w", events[i].Name, err))
		}
	}
	return first
}

// involved is the key of the object that an event is about. A kind that Pawl
// does not know goes by its own name.
func involved(e *corev1.Event) schema.ObjectKey {
	o := e.InvolvedObject
	k := schema.ObjectKey{Namespace: o.Namespace, Name: o.Name, Kind: "others"}
	if i, ok := schema.LookupGVK(o.GroupVersionKind()); ok {
		k.Kind = i.Kind
	}
	if k.Name == "" {
		k.Name = "unnamed"
	}
	return k
}

// await waits for one acknowledgement.
func await(ctx context.Context, ack jetstream.PubAckFuture) (*jetstream.PubAck, error) {
	select {
	case a := <-ack.Ok():
		return a, nil
	case err := <-ack.Err():
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// mismatch says whether the server refused a write because the key had another
// revision than expected.
func mismatch(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	return api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}
