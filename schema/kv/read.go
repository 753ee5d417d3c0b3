package kv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pawl-project/pawl/schema"
)

// What stands here reads the store once, for people and tests to look at. No
// decision is made from it: that takes a View.

// ReadAll returns the values of a bucket whose keys match filter, in which '*'
// stands for one token and a last '>' for all that follow; sorted by key. The
// error wraps schema.ErrUnavailable when the store does not answer,
// schema.ErrNotFound when there is no such bucket.
func ReadAll[T any](ctx context.Context, c *Conn, b Bucket, filter string, decode func(key string, raw []byte) (T, error)) ([]T, error) {
	found, err := read(ctx, c, b, filter)
	if err != nil {
		return nil, err
	}
	values := make([]T, 0, len(found))
	for _, e := range found {
		v, err := decode(e.Key(), e.Value())
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// ReadKeys returns the keys of a bucket that hold a value, sorted.
func ReadKeys(ctx context.Context, c *Conn, b Bucket) ([]string, error) {
	found, err := read(ctx, c, b, ">", jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(found))
	for i, e := range found {
		keys[i] = e.Key()
	}
	return keys, nil
}

// ReadRevisions returns what the store remembers of commits, in no order.
func ReadRevisions(ctx context.Context, c *Conn) ([]schema.RevisionRecord, error) {
	found, err := ReadAll(ctx, c, Actuals, string(Revisions)+".>", DecodeActual)
	if err != nil {
		return nil, err
	}
	records := make([]schema.RevisionRecord, len(found))
	for i, a := range found {
		records[i] = *a.Revision
	}
	return records, nil
}

// read returns the newest entry of each key that holds a value, sorted by key.
func read(ctx context.Context, c *Conn, b Bucket, filter string, options ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	ctx, cancel := c.whileConnected(ctx, forEver)
	defer cancel()
	bucket, err := c.js.KeyValue(ctx, string(b))
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return nil, fmt.Errorf("read %s: %w: %w", b, err, schema.ErrNotFound)
	}
	if err != nil {
		return nil, unavailable(fmt.Errorf("read %s: %w", b, cause(ctx, err)))
	}
	w, err := bucket.Watch(ctx, filter, options...)
	if err != nil {
		return nil, unavailable(fmt.Errorf("read %s: %w", b, cause(ctx, err)))
	}
	defer drain(w)
	newest := map[string]jetstream.KeyValueEntry{}
	first := firstValues{undelivered: func() (map[string]struct{}, error) {
		return undelivered(ctx, c, b, filter, func(key string) bool { return newest[key] != nil })
	}}
	defer first.stop()
	for !first.whole() {
		select {
		case <-ctx.Done():
			return nil, unavailable(fmt.Errorf("read %s: %w", b, context.Cause(ctx)))
		case <-first.again:
			err = first.look()
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				err = errLost
			case e == nil:
				err = first.look()
			default:
				newest[e.Key()] = e
				first.delivered(e.Key())
			}
		}
		if err != nil {
			return nil, unavailable(fmt.Errorf("read %s: %w", b, cause(ctx, err)))
		}
	}
	maps.DeleteFunc(newest, func(_ string, e jetstream.KeyValueEntry) bool { return e.Operation() != jetstream.KeyValuePut })
	return sorted(newest), nil
}

func sorted(entries map[string]jetstream.KeyValueEntry) []jetstream.KeyValueEntry {
	all := make([]jetstream.KeyValueEntry, 0, len(entries))
	for _, e := range entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(x, y jetstream.KeyValueEntry) int { return strings.Compare(x.Key(), y.Key()) })
	return all
}
