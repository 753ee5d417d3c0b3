package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/cache"
)

// listShapes are the shapes in which a list is answered.
func listShapes(s shape, group, version string) bool {
	return s == wholeShape || (s == tableShape || s == partialsShape) && metaVersion(group, version)
}

// list answers with objects.
func (q *request) list() {
	f, err := negotiate(q.r, offer{q.res.media(), listShapes})
	if err != nil {
		q.fail(err)
		return
	}
	o, err := q.options()
	if err != nil {
		q.fail(err)
		return
	}
	items, meta, err := q.page(o)
	if err != nil {
		q.fail(err)
		return
	}
	q.answerList(f, meta, items)
}

// answerList writes a list. The common forms are joined from what the cache has
// encoded, straight onto the wire.
func (q *request) answerList(f form, meta metav1.ListMeta, items []*cache.Item) {
	write := func(w io.Writer) error { return q.writeJSON(w, meta, items) }
	if f.shape == tableShape {
		if _, err := includeObject(q.r.URL.Query()); err != nil {
			q.fail(err)
			return
		}
		write = func(w io.Writer) error { return q.writeTable(w, f, meta, items) }
	}
	switch {
	case f.shape == partialsShape:
		q.answerPartials(f, meta, items)
	case f.media == protoMedia:
		q.answerProto(meta, items)
	case f.media == jsonMedia && !f.pretty && q.res.open == nil:
		q.written(f, len(items), func(w io.Writer) error {
			err := write(w)
			if err == nil {
				_, err = io.WriteString(w, "\n")
			}
			return err
		})
	default: // what can fail is made before the answer begins
		q.answerJSON(f, write)
	}
}

// answerJSON answers with what is written as JSON, in the media of the form.
func (q *request) answerJSON(f form, write func(io.Writer) error) {
	var b bytes.Buffer
	err := write(&b)
	body := b.Bytes()
	if err == nil {
		body, err = fromJSON(body, f.media)
	}
	if err != nil {
		q.fail(err)
		return
	}
	q.writeBody(q.w, q.r, http.StatusOK, f, body)
}

func (q *request) answerPartials(f form, meta metav1.ListMeta, items []*cache.Item) {
	l := &metav1.PartialObjectMetadataList{
		TypeMeta: metav1.TypeMeta{Kind: string(partialsShape), APIVersion: metaGroup + "/" + f.version},
		ListMeta: meta, Items: make([]metav1.PartialObjectMetadata, len(items)),
	}
	for n, i := range items {
		l.Items[n] = *partialOf(i.Object(), f.version)
		if f.media == protoMedia {
			l.Items[n].TypeMeta = metav1.TypeMeta{}
		}
	}
	q.writeObject(q.w, q.r, http.StatusOK, f, l)
}

// wire is the size of what is gathered before it is written, in bytes.
const wire = 64 << 10

// written answers with what write writes. When that fails in the middle the
// connection is cut, so that no half of a list is taken for a whole one.
func (q *request) written(f form, items int, write func(io.Writer) error) {
	q.w.Header().Set("Content-Type", f.contentType())
	q.w.Header().Set("Cache-Control", "no-cache, private")
	slow := bounded{q.w, http.NewResponseController(q.w)}
	out, done := compress(slow, q.r, items*likelySize)
	if q.r.Method == http.MethodHead {
		done()
		return
	}
	b := bufio.NewWriterSize(out, wire)
	err := write(b)
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		if q.r.Context().Err() == nil {
			q.Logger.Error("list ended early", "path", q.r.URL.Path, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	done()
	slow.done()
}

// likelySize is what one object weighs when it is encoded, in bytes, roughly.
const likelySize = 1 << 10

// writeJSON writes a list. As in Kubernetes its items say nothing of their kind
// when the list's says it, and do when they are of a kind of our own.
func (q *request) writeJSON(w io.Writer, meta metav1.ListMeta, items []*cache.Item) error {
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	kind := q.res.listMeta()
	head := `{"kind":"` + kind.Kind + `","apiVersion":"` + kind.APIVersion + `","metadata":` + string(text) + `,"items":`
	if _, err := io.WriteString(w, head); err != nil {
		return err
	}
	var known []byte
	if q.res.proto {
		known = []byte(`{"kind":"` + q.res.gvk.Kind + `","apiVersion":"` + q.res.apiVersion() + `",`)
	}
	return joinTo(w, items, known, q.res.json)
}

// joinTo writes the items of a list, and ends the list. What they all begin with
// is left out; nil: nothing is.
func joinTo(w io.Writer, items []*cache.Item, known []byte, encode func(*cache.Item) ([]byte, error)) error {
	between := []byte("[")
	for part := range slices.Chunk(items, atOnce) {
		texts, err := encodeAll(part, encode)
		if err != nil {
			return err
		}
		for _, text := range texts {
			w.Write(between) //nolint:errcheck // the write below fails too
			if rest, ok := bytes.CutPrefix(text, known); ok && known != nil {
				w.Write([]byte("{")) //nolint:errcheck // as above
				text = rest
			}
			if _, err := w.Write(text); err != nil {
				return err
			}
			between = []byte(",")
		}
	}
	end := "]}"
	if len(items) == 0 {
		end = "[]}"
	}
	_, err := io.WriteString(w, end)
	return err
}

// answerProto writes a list in protobuf: every list of Kubernetes has its
// metadata first and then its items.
func (q *request) answerProto(meta metav1.ListMeta, items []*cache.Item) {
	head, err := meta.Marshal()
	if err != nil {
		q.fail(err)
		return
	}
	raw, err := encodeAll(items, q.res.message)
	if err != nil {
		q.fail(err)
		return
	}
	size := protoField(len(head))
	for _, r := range raw {
		size += protoField(len(r))
	}
	kind := q.res.listMeta()
	q.written(form{media: protoMedia}, len(items), func(w io.Writer) error {
		b := envelope(nil, kind.APIVersion, kind.Kind, size)
		b = append(appendLength(b, listMetadata, len(head)), head...)
		if _, err := w.Write(b); err != nil {
			return err
		}
		for _, r := range raw {
			b = appendLength(b[:0], listItem, len(r))
			w.Write(b) //nolint:errcheck // a bufio.Writer says it again
			if _, err := w.Write(r); err != nil {
				return err
			}
		}
		return nil
	})
}

const (
	// atOnce is how many objects of a list are encoded before they are written, so
	// that a list too large to be kept encoded is never in memory as a whole.
	atOnce = 1024
	// shareFrom is how many objects are worth a second goroutine.
	shareFrom = 128
)

// encodeAll encodes objects, on several cores where there are many.
func encodeAll(items []*cache.Item, encode func(*cache.Item) ([]byte, error)) ([][]byte, error) {
	out := make([][]byte, len(items))
	part := func(from, to int) error {
		for n := from; n < to; n++ {
			var err error
			if out[n], err = encode(items[n]); err != nil {
				return err
			}
		}
		return nil
	}
	workers := min(runtime.GOMAXPROCS(0), len(items)/shareFrom)
	if workers < 2 {
		return out, part(0, len(items))
	}
	var g errgroup.Group
	for n := range workers {
		g.Go(func() error { return part(n*len(items)/workers, (n+1)*len(items)/workers) })
	}
	return out, g.Wait()
}
