package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/pawl-project/pawl/schema"
)

const (
	// batchFrom is the number of writes from which one batch, with one sync to
	// disk, is faster than as many writes with one each; a busy disk lowers it.
	batchFrom = 16
	// batchMost is what the server takes in one batch.
	batchMost = 1000

	headerOperation    = "KV-Operation"
	headerMarkerReason = "Nats-Marker-Reason"
	headerBatchID      = "Nats-Batch-Id"
	headerBatchSeq     = "Nats-Batch-Sequence"
	headerBatchCommit  = "Nats-Batch-Commit"

	// A delete marker is written as a purge, though it purges nothing: to any
	// other marker the server adds one of its own when it expires.
	operationPurge = "PURGE"
)

// A Write changes one key, if it still has the revision expected.
type Write struct {
	Bucket Bucket
	Key    string // made by layout.go
	Value  []byte // JSON; not looked at with Delete
	Delete bool
	// Revision the key must have; 0: the key must not exist (never did, or was
	// deleted). A Delete of revision 0 writes nothing.
	Revision uint64
}

// Commit makes the writes durable and returns the new revision of each, 0 for
// one that was not written. Writes to one bucket go as one atomic batch (of at
// most 1,000; more go as several) when they are 16 or more, else one by one;
// buckets are written in the order in which they first appear, and after a
// failed bucket no other is touched. Each key may appear once.
//
// The error wraps schema.ErrConflict when a key had another revision (a batch
// then wrote nothing), schema.ErrUnavailable when the store does not answer: a
// write whose revision is 0 may then have happened all the same, and the views
// will tell.
func (s *Store) Commit(ctx context.Context, writes []Write) ([]uint64, error) {
	revisions := make([]uint64, len(writes))
	for _, group := range groups(writes) {
		var err error
		if len(group) >= batchFrom {
			err = s.commitBatches(ctx, writes, group, revisions)
		} else {
			err = s.commitEach(ctx, writes, group, revisions)
		}
		s.troubles.note(writes[group[0]].Bucket, err, time.Now())
		if err != nil {
			s.noteMissing(writes[group[0]].Bucket, err)
			return revisions, err
		}
	}
	return revisions, nil
}

// CommitEach makes the writes one by one, however many they are: a conflict
// stops only the write that has it. Revisions and errors are as those of Commit.
func (s *Store) CommitEach(ctx context.Context, writes []Write) ([]uint64, error) {
	revisions := make([]uint64, len(writes))
	var errs []error
	for _, group := range groups(writes) {
		err := s.commitEach(ctx, writes, group, revisions)
		s.troubles.note(writes[group[0]].Bucket, err, time.Now())
		if err != nil {
			s.noteMissing(writes[group[0]].Bucket, err)
			errs = append(errs, err)
		}
	}
	return revisions, errors.Join(errs...)
}

// groups sorts the indices of writes by bucket, leaving out those with nothing to do.
func groups(writes []Write) [][]int {
	var order []Bucket
	by := map[Bucket][]int{}
	for i, w := range writes {
		if w.Delete && w.Revision == 0 {
			continue
		}
		if by[w.Bucket] == nil {
			order = append(order, w.Bucket)
		}
		by[w.Bucket] = append(by[w.Bucket], i)
	}
	out := make([][]int, 0, len(order))
	for _, b := range order {
		out = append(out, by[b])
	}
	return out
}

func (s *Store) commitBatches(ctx context.Context, writes []Write, group []int, revisions []uint64) error {
	for len(group) > 0 {
		n := min(len(group), batchMost)
		err := s.commitBatch(ctx, writes, group[:n], revisions)
		if mismatch(err) && len(s.relearn(ctx, writes, group[:n])) > 0 {
			err = s.commitBatch(ctx, writes, group[:n], revisions)
		}
		if mismatch(err) {
			return fmt.Errorf("write %d keys of %s, %s among them: %w: %w", n, writes[group[0]].Bucket, writes[group[0]].Key, err, schema.ErrConflict)
		}
		if err != nil {
			return unavailable(fmt.Errorf("write %d keys of %s: %w", n, writes[group[0]].Bucket, err))
		}
		group = group[n:]
	}
	return nil
}

// commitBatch writes all or nothing. Only the last message is answered.
func (s *Store) commitBatch(ctx context.Context, writes []Write, group []int, revisions []uint64) error {
	ctx, cancel := s.conn.whileConnected(ctx, requestLimit)
	defer cancel()
	id := nuid.Next()
	for n, i := range group {
		m := s.message(writes[i])
		m.Header[headerBatchID] = []string{id}
		m.Header[headerBatchSeq] = []string{strconv.Itoa(n + 1)}
		if n < len(group)-1 {
			if err := s.conn.nc.PublishMsg(m); err != nil {
				return err
			}
			continue
		}
		m.Header[headerBatchCommit] = []string{"1"}
		last, err := s.batchAck(ctx, m)
		if err != nil {
			return err
		}
		// A batch stands in the stream without a gap.
		for n, i := range group {
			revisions[i] = last - uint64(len(group)-1-n)
			s.learn(writes[i], revisions[i])
		}
	}
	return nil
}

func (s *Store) batchAck(ctx context.Context, m *nats.Msg) (last uint64, err error) {
	answer, err := s.conn.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, fmt.Errorf("answer to a batch: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Sequence == 0 {
		return 0, errors.New("answer to a batch names no revision")
	}
	return ack.Sequence, nil
}

// commitEach writes the group without waiting between the writes.
func (s *Store) commitEach(ctx context.Context, writes []Write, group []int, revisions []uint64) error {
	failed := s.putEach(ctx, writes, group, revisions)
	var anew []int
	for _, f := range failed {
		if mismatch(f.err) && writes[f.index].Revision == 0 {
			anew = append(anew, f.index)
		}
	}
	if again := s.relearn(ctx, writes, anew); len(again) > 0 {
		failed = slices.DeleteFunc(failed, func(f failure) bool { return slices.Contains(again, f.index) })
		failed = append(failed, s.putEach(ctx, writes, again, revisions)...)
	}
	var errs []error
	for n, f := range failed {
		w := writes[f.index]
		class := schema.ErrUnavailable
		if mismatch(f.err) {
			class = schema.ErrConflict
		}
		if n < errorsNamed {
			errs = append(errs, fmt.Errorf("write %s of %s: %w: %w", w.Key, w.Bucket, f.err, class))
		} else if n == errorsNamed {
			errs = append(errs, fmt.Errorf("and %d more writes", len(failed)-errorsNamed))
		}
	}
	return errors.Join(errs...)
}

// errorsNamed is how many failed writes an error names.
const errorsNamed = 5

type failure struct {
	index int
	err   error
}

func (s *Store) putEach(ctx context.Context, writes []Write, group []int, revisions []uint64) (failed []failure) {
	ctx, cancel := s.conn.whileConnected(ctx, requestLimit)
	defer cancel()
	acks := make([]jetstream.PubAckFuture, len(group))
	for n, i := range group {
		ack, err := s.conn.js.PublishMsgAsync(s.message(writes[i]), jetstream.WithStallWait(requestLimit))
		if err != nil {
			failed = append(failed, failure{i, err})
			continue
		}
		acks[n] = ack
	}
	for n, i := range group {
		if acks[n] == nil {
			continue
		}
		ack, err := await(ctx, acks[n])
		if err != nil {
			failed = append(failed, failure{i, err})
			continue
		}
		revisions[i] = ack.Sequence
		s.learn(writes[i], ack.Sequence)
	}
	return failed
}

// message is a write as the server takes it.
func (s *Store) message(w Write) *nats.Msg {
	expected := w.Revision
	if expected == 0 {
		expected = s.markers.get(w.Bucket, w.Key)
	}
	m := &nats.Msg{
		Subject: subjectOf(w.Bucket, w.Key),
		Data:    w.Value,
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(expected, 10)}},
	}
	if w.Delete {
		m.Data = nil
		m.Header[headerOperation] = []string{operationPurge}
		m.Header[jetstream.MsgTTLHeader] = []string{strconv.Itoa(int(s.ttl/time.Second)) + "s"}
	}
	return m
}

// learn remembers the markers that this store wrote, to make a key anew without
// having to ask for the revision of its marker.
func (s *Store) learn(w Write, revision uint64) {
	if w.Delete {
		s.markers.set(w.Bucket, w.Key, revision)
	} else {
		s.markers.forget(w.Bucket, w.Key)
	}
}

// relearn asks the server for the markers of keys that are to be made anew, and
// returns those writes of the group for which trying again makes sense: a marker
// stands where another, or none, was believed. Of the others a value stands there.
func (s *Store) relearn(ctx context.Context, writes []Write, group []int) (again []int) {
	for _, i := range group {
		w := writes[i]
		if w.Revision != 0 {
			continue
		}
		revision, deleted, err := s.last(ctx, w.Bucket, w.Key)
		if err != nil {
			return again
		}
		believed := s.markers.get(w.Bucket, w.Key)
		if !deleted || revision == 0 {
			s.markers.forget(w.Bucket, w.Key)
		} else {
			s.markers.set(w.Bucket, w.Key, revision)
		}
		if deleted && revision != believed {
			again = append(again, i)
		}
	}
	return again
}

// last asks the leader of the bucket for the revision of a key, and whether it
// is a delete marker's; 0 and true when there is nothing.
func (s *Store) last(ctx context.Context, b Bucket, key string) (revision uint64, deleted bool, err error) {
	m, err := s.lastMessage(ctx, b, key)
	if errors.Is(err, schema.ErrNotFound) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	return m.Sequence, isMarker(m.header), nil
}

type storedMessage struct {
	Sequence uint64    `json:"seq"`
	Headers  []byte    `json:"hdrs"`
	Data     []byte    `json:"data"`
	Time     time.Time `json:"time"`
	header   nats.Header
}

func (s *Store) lastMessage(ctx context.Context, b Bucket, key string) (*storedMessage, error) {
	ctx, cancel := s.conn.whileConnected(ctx, requestLimit)
	defer cancel()
	question, err := json.Marshal(map[string]string{"last_by_subj": subjectOf(b, key)})
	if err != nil {
		return nil, err
	}
	answer, err := s.conn.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+string(b), question)
	if err != nil {
		return nil, unavailable(fmt.Errorf("look up %s of %s: %w", key, b, err))
	}
	var a struct {
		Error   *jetstream.APIError `json:"error"`
		Message *storedMessage      `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &a); err != nil {
		return nil, fmt.Errorf("look up %s of %s: %w", key, b, err)
	}
	if a.Error != nil && a.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return nil, fmt.Errorf("key %s of %s: %w", key, b, schema.ErrNotFound)
	}
	if a.Error != nil || a.Message == nil {
		return nil, unavailable(fmt.Errorf("look up %s of %s: %w", key, b, a.Error))
	}
	if len(a.Message.Headers) > 0 {
		if a.Message.header, err = nats.DecodeHeadersMsg(a.Message.Headers); err != nil {
			return nil, fmt.Errorf("look up %s of %s: %w", key, b, err)
		}
	}
	return a.Message, nil
}

// isMarker says whether a message marks that its key was deleted or expired.
func isMarker(h nats.Header) bool {
	return h.Get(headerOperation) != "" || h.Get(headerMarkerReason) != ""
}

// markers remembers where delete markers stand. It is only a hint: what it gets
// wrong the server refuses.
type markers struct {
	mu    sync.Mutex
	known map[string]marker
}

type marker struct {
	revision uint64
	until    time.Time
}

// markersMost bounds the memory; beyond it the server is asked.
const markersMost = 100_000

func (m *markers) get(b Bucket, key string) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[string(b)+"."+key].revision
}

func (m *markers) set(b Bucket, key string, revision uint64) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.known) >= markersMost {
		for k, x := range m.known {
			if now.After(x.until) {
				delete(m.known, k)
			}
		}
	}
	if len(m.known) < markersMost {
		m.known[string(b)+"."+key] = marker{revision, now.Add(markerTTL)}
	}
}

func (m *markers) forget(b Bucket, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, string(b)+"."+key)
}
