package stream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// store asks for the body to be written into a container of the node.
func store(t *testing.T, body io.Reader, handle func(r kv.StreamRequest, n nodeSide) error) *http.Response {
	g := &rig{t: t, node: &fakeNode{handle: handle}, pod: webPod()}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?path=/srv", body)
	g.newStreams().Archive(w, r, schema.PodKey{Namespace: "default", Name: "web"})
	g.node.running.Wait()
	return w.Result()
}

// What is written is written, however the stream ends after that was said.
func TestStoredBeforeTheNodeWasLost(t *testing.T) {
	got := store(t, strings.NewReader("a tar"), func(_ kv.StreamRequest, n nodeSide) error {
		for {
			if _, more := n.next(); !more {
				_ = n.result(kv.StreamResult{})
				return kv.StreamErrorf(schema.ErrUnavailable, "node n1: its agent is stopping")
			}
		}
	})
	if got.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(got.Body)
		t.Errorf("%d: %s", got.StatusCode, text)
	}
}

// A body that breaks off is no end of the tar, and nobody waits for the rest.
func TestStoreOfABodyThatBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := io.MultiReader(strings.NewReader("half a tar"), iotest.ErrReader(errors.New("malformed chunk")))
		got := store(t, body, func(_ kv.StreamRequest, n nodeSide) error {
			for {
				if _, more := n.next(); !more {
					break
				}
			}
			if n.ctx.Err() == nil {
				t.Error("the node takes half a tar for one")
			}
			return context.Cause(n.ctx)
		})
		text, _ := io.ReadAll(got.Body)
		if got.StatusCode != http.StatusInternalServerError || !strings.Contains(string(text), "malformed chunk") {
			t.Errorf("%d: %s", got.StatusCode, text)
		}
	})
}
