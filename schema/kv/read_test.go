package kv

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// A key that is written again while the bucket is read has either value, and is
// never missing.
func TestReadOfWhatIsBeingWritten(t *testing.T) {
	s := newServer(t)
	store := s.store()
	want := make([]string, 20)
	for i := range want {
		want[i] = "k." + strconv.Itoa(10+i)
		commit(t, store, put(want[i], "1", 0))
	}
	bucket, err := s.connect().js.KeyValue(t.Context(), string(Desired))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range want[:4] {
		run(t, func(ctx context.Context) error {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := bucket.PutString(ctx, key, strconv.Itoa(i)); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	slowly := func(key string, raw []byte) (string, error) {
		time.Sleep(time.Millisecond) // what is missing at the marker is so for longer
		return text(key, raw)
	}
	for range 20 {
		view := NewView(store, Desired, slowly)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- view.Run(ctx) }()
		for !view.Whole() {
			runtime.Gosched()
		}
		var keys []string
		for e := range view.All() {
			keys = append(keys, e.Key)
		}
		cancel()
		if err := <-done; err != nil || !slices.Equal(keys, want) {
			t.Fatalf("the view has %v, %v", keys, err)
		}
	}
	for range 100 {
		keys, err := ReadKeys(t.Context(), store.conn, Desired)
		if err != nil || !slices.Equal(keys, want) {
			t.Fatalf("%v, %v", keys, err)
		}
	}
	if values, err := ReadAll(t.Context(), store.conn, Desired, "nosuch.>", text); err != nil || len(values) != 0 {
		t.Errorf("of no key: %q, %v", values, err)
	}
	if err := bucket.Delete(t.Context(), want[9]); err != nil {
		t.Fatal(err)
	}
	if keys, err := ReadKeys(t.Context(), store.conn, Desired); err != nil || slices.Contains(keys, want[9]) {
		t.Errorf("what was deleted is there: %q, %v", keys, err)
	}
	if values, err := ReadAll(t.Context(), store.conn, Desired, want[8], text); err != nil || !slices.Equal(values, []string{"1"}) {
		t.Errorf("of one key: %q, %v", values, err)
	}
}
