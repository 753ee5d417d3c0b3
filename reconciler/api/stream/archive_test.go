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
func store(t *testing.T, body io.Reader, handle func(r kv.StreamRequest, n nodeSide) error) *httptest.ResponseRecorder {
	t.Helper()
	g := &rig{t: t, node: &fakeNode{handle: handle}, pod: webPod()}
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?path=/srv", body)
	g.newStreams().Archive(w, r, schema.PodKey{Namespace: "default", Name: "web"})
	g.node.running.Wait()
	return w
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
	if got.Code != http.StatusOK {
		t.Errorf("%d: %s", got.Code, got.Body)
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
		if got.Code != http.StatusInternalServerError || !strings.Contains(got.Body.String(), "malformed chunk") {
			t.Errorf("%d: %s", got.Code, got.Body)
		}
	})
}
