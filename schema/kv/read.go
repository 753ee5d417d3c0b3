package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/pawl-project/pawl/schema"
)

// ReadAll reads, once, every value of a bucket whose key matches a NATS subject
// pattern. It is for showing, not for deciding: Views are for that.
func ReadAll[T any](ctx context.Context, c *Conn, b Bucket, pattern string, decode func(key string, raw []byte) (T, error)) ([]T, error) {
	bucket, err := c.js.KeyValue(ctx, string(b))
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b, err)
	}
	w, err := bucket.Watch(ctx, pattern, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", b, err)
	}
	defer drain(w)
	var all []T
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case e, ok := <-w.Updates():
			if !ok {
				return nil, fmt.Errorf("read %s: %w", b, errors.Join(errLost, schema.ErrUnavailable))
			}
			if e == nil {
				return all, nil
			}
			v, err := decode(e.Key(), e.Value())
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
	}
}

// ReadKeys lists the keys of a bucket, as ReadAll does.
func ReadKeys(ctx context.Context, c *Conn, b Bucket) ([]string, error) {
	return ReadAll(ctx, c, b, ">", func(key string, _ []byte) (string, error) { return key, nil })
}

// ReadRevisions reads the RevisionRecords, in no order.
func ReadRevisions(ctx context.Context, c *Conn) ([]schema.RevisionRecord, error) {
	values, err := ReadAll(ctx, c, Actuals, string(Revisions)+".>", DecodeActual)
	if err != nil {
		return nil, err
	}
	records := make([]schema.RevisionRecord, 0, len(values))
	for _, v := range values {
		if v.Revision != nil {
			records = append(records, *v.Revision)
		}
	}
	return records, nil
}
