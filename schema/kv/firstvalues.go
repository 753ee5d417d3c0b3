package kv

import (
	"context"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A watch's marker says that its first values are in. It can come before a key
// that was written again while they were read: the value that the marker counted
// is gone, and the new one follows. Who took the marker at its word would hold
// such a key for absent. So the bucket is asked which keys it has.

// lookEvery is the time between looks at keys that do not come: one may be gone.
const lookEvery = time.Second

// firstValues tells when a watch has delivered a value of every key that there is.
type firstValues struct {
	undelivered func() (map[string]struct{}, error)

	marker bool                // has come
	left   map[string]struct{} // keys that have not
	again  <-chan time.Time    // when to look again; nil: not now
	ticker *time.Ticker
	told   bool // whole has said so
}

// look is called for the marker, and for again.
func (f *firstValues) look() (err error) {
	f.marker = true
	f.left, err = f.undelivered()
	if f.ticker == nil && len(f.left) > 0 {
		f.ticker = time.NewTicker(lookEvery)
		f.again = f.ticker.C
	}
	return err
}

func (f *firstValues) delivered(key string) { delete(f.left, key) }

// whole says so once.
func (f *firstValues) whole() bool {
	if f.told || !f.marker || len(f.left) > 0 {
		return false
	}
	f.told = true
	f.stop()
	return true
}

// stop is called when the watch is given up.
func (f *firstValues) stop() {
	if f.ticker != nil {
		f.ticker.Stop()
		f.ticker, f.again = nil, nil
	}
}

// undelivered lists the keys of a bucket that match filter and that has does not
// know.
func undelivered(ctx context.Context, c *Conn, b Bucket, filter string, has func(key string) bool) (map[string]struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	stream, err := c.js.Stream(ctx, streamOf(b))
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(subjectOf(b, filter)))
	if err != nil {
		return nil, err
	}
	left := map[string]struct{}{}
	for subject := range info.State.Subjects {
		if key := strings.TrimPrefix(subject, subjectOf(b, "")); !has(key) {
			left[key] = struct{}{}
		}
	}
	return left, nil
}
