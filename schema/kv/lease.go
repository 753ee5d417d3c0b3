package kv

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pawl-project/pawl/schema"
)

// A Lease is a key of pawl-leases that vanishes unless it is renewed.
type Lease struct {
	Value    []byte
	Revision uint64    // grows with every renewal: a fencing token
	Renewed  time.Time // by the server's clock
}

// PutLease makes a lease (revision 0) or renews it (the revision it has), to
// expire ttl from now: whole seconds, at least one. It returns the new
// revision. The error wraps schema.ErrConflict when the lease has another
// revision, schema.ErrUnavailable when the store does not answer.
func (s *Store) PutLease(ctx context.Context, key string, value []byte, ttl time.Duration, revision uint64) (uint64, error) {
	if ttl < time.Second || ttl%time.Second != 0 {
		return 0, fmt.Errorf("lease %s: %s is not whole seconds: %w", key, ttl, schema.ErrRefused)
	}
	put := func() (uint64, error) {
		ctx, cancel := s.conn.whileConnected(ctx, requestLimit)
		defer cancel()
		m := s.message(Write{Bucket: Leases, Key: key, Value: value, Revision: revision})
		m.Header[jetstream.MsgTTLHeader] = []string{strconv.Itoa(int(ttl/time.Second)) + "s"}
		ack, err := s.conn.js.PublishMsg(ctx, m)
		if err != nil {
			return 0, err
		}
		s.markers.forget(Leases, key)
		return ack.Sequence, nil
	}
	got, err := put()
	if mismatch(err) && revision == 0 && len(s.relearn(ctx, []Write{{Bucket: Leases, Key: key}}, []int{0})) > 0 {
		got, err = put()
	}
	if mismatch(err) {
		return 0, fmt.Errorf("lease %s: %w: %w", key, err, schema.ErrConflict)
	}
	if err != nil {
		return 0, unavailable(fmt.Errorf("lease %s: %w", key, err))
	}
	return got, nil
}

// GetLease returns a lease. After a restart of the server one that has expired
// may be seen for another second or two: compare Renewed too. The error wraps
// schema.ErrNotFound when there is none.
func (s *Store) GetLease(ctx context.Context, key string) (Lease, error) {
	m, err := s.lastMessage(ctx, Leases, key)
	if err != nil {
		return Lease{}, err
	}
	if isMarker(m.header) {
		return Lease{}, fmt.Errorf("lease %s: %w", key, schema.ErrNotFound)
	}
	return Lease{Value: m.Data, Revision: m.Sequence, Renewed: m.Time}, nil
}

// DropLease ends a lease that has the revision, before its time.
func (s *Store) DropLease(ctx context.Context, key string, revision uint64) error {
	_, err := s.Commit(ctx, []Write{{Bucket: Leases, Key: key, Delete: true, Revision: revision}})
	return err
}

// NodeLeases holds one lease for each node, which only the gateway renews.
type NodeLeases struct {
	store *Store
	key   func(schema.NodeName) string
	last  map[schema.NodeName]uint64
}

// NewNodeLeases returns a holder that knows no lease yet. It is for use by one
// goroutine.
func (s *Store) NewNodeLeases() *NodeLeases {
	return &NodeLeases{store: s, key: NodeLeaseKey, last: map[schema.NodeName]uint64{}}
}

// NewUsages is as NewNodeLeases, for what nodes take.
func (s *Store) NewUsages() *NodeLeases {
	return &NodeLeases{store: s, key: UsageKey, last: map[schema.NodeName]uint64{}}
}

// Renew makes or renews a node's lease.
func (l *NodeLeases) Renew(ctx context.Context, n schema.NodeName, value []byte, ttl time.Duration) error {
	key := l.key(n)
	rev, err := l.store.PutLease(ctx, key, value, ttl, l.last[n])
	if errors.Is(err, schema.ErrConflict) {
		// It expired, or another gateway renewed it before this one took over.
		var known Lease
		known, err = l.store.GetLease(ctx, key)
		if err != nil && !errors.Is(err, schema.ErrNotFound) {
			return err
		}
		rev, err = l.store.PutLease(ctx, key, value, ttl, known.Revision)
	}
	if err != nil {
		return err
	}
	l.last[n] = rev
	return nil
}

// Keep drops what is known of the nodes for which known is false.
func (l *NodeLeases) Keep(known func(schema.NodeName) bool) {
	for n := range l.last {
		if !known(n) {
			delete(l.last, n)
		}
	}
}

// Forget drops what is known of a node that is not heard of any more.
func (l *NodeLeases) Forget(n schema.NodeName) { delete(l.last, n) }
