package api

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// protoMessage is what the generated types of Kubernetes have.
type protoMessage interface {
	Marshal() ([]byte, error)
	Size() int
}

// protoMagic is what Kubernetes' protobuf begins with.
const protoMagic = "k8s\x00"

// Tags of the protobuf messages written by hand here: the number of the field,
// and that a length follows.
const (
	unknownTypeMeta  = 1<<3 | 2 // runtime.Unknown
	unknownRaw       = 2<<3 | 2
	typeMetaVersion  = 1<<3 | 2 // runtime.TypeMeta
	typeMetaKind     = 2<<3 | 2
	listMetadata     = 1<<3 | 2 // of every list
	listItem         = 2<<3 | 2
	watchEventType   = 1<<3 | 2 // metav1.WatchEvent
	watchEventObject = 2<<3 | 2
	rawExtensionRaw  = 1<<3 | 2 // runtime.RawExtension
)

// contentType is the name of a form in the Content-Type header.
func (f form) contentType() string {
	if f.shape == discoveryShape {
		return string(f.media) + ";g=" + discoveryGroup + ";v=" + f.version + ";as=" + string(f.shape)
	}
	return string(f.media)
}

// writeObject answers with one object whose TypeMeta is filled in. It is only
// read.
func (s *Server) writeObject(w http.ResponseWriter, r *http.Request, code int, f form, o runtime.Object) {
	body, err := encode(o, f.media)
	if err != nil {
		s.Logger.Error("encode an answer", "path", r.URL.Path, "err", err)
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	s.writeBody(w, r, code, f, body)
}

// encode writes an object down.
func encode(o runtime.Object, m media) ([]byte, error) {
	switch m {
	case protoMedia:
		p, ok := o.(protoMessage)
		if !ok {
			return nil, fmt.Errorf("%T has no protobuf", o)
		}
		raw, err := p.Marshal()
		if err != nil {
			return nil, err
		}
		apiVersion, kind := o.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
		return append(envelope(nil, apiVersion, kind, len(raw)), raw...), nil
	case yamlMedia:
		return yaml.Marshal(o)
	}
	return json.Marshal(o)
}

// writeBody answers with an encoded object: JSON for the yaml and json media
// alike is not expected, each comes as what it is.
func (s *Server) writeBody(w http.ResponseWriter, r *http.Request, code int, f form, body []byte) {
	if f.media == jsonMedia {
		body = finishJSON(body, f.pretty)
	}
	w.Header().Set("Content-Type", f.contentType())
	w.Header().Set("Cache-Control", "no-cache, private")
	out, done := compress(w, r, len(body))
	if len(body) > wire { // what is smaller costs less to keep
		defer inTime(w, len(body))()
	}
	w.WriteHeader(code)
	if r.Method != http.MethodHead {
		// Nobody is left to tell when the caller has gone.
		_, _ = out.Write(body)
	}
	done()
}

// finishJSON ends JSON with a newline, and spreads it out for a person.
func finishJSON(body []byte, pretty bool) []byte {
	if pretty {
		var out bytes.Buffer
		if json.Indent(&out, body, "", "  ") == nil {
			body = out.Bytes()
		}
	}
	// The bytes may be shared: what is appended goes elsewhere.
	return append(body[:len(body):len(body)], '\n')
}

// fromJSON turns JSON into the media of an answer that was made as JSON.
func fromJSON(body []byte, m media) ([]byte, error) {
	if m == yamlMedia {
		return yaml.JSONToYAML(body)
	}
	return body, nil
}

// compressFrom is the size in bytes from which an answer is compressed.
const compressFrom = 128 << 10

var gzips = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return z
}}

// compress returns where to write an answer of about so many bytes, and what to
// call after it. It compresses a large answer for a caller who accepts that,
// unless the caller is on this machine: there is no line to save, and
// compressing costs more than all the rest of a list.
func compress(w http.ResponseWriter, r *http.Request, size int) (io.Writer, func()) {
	w.Header().Add("Vary", "Accept-Encoding")
	if size < compressFrom || r.Method == http.MethodHead || onThisMachine(r) || !acceptsGzip(r) {
		return w, func() {}
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzips.Get().(*gzip.Writer)
	z.Reset(w)
	return z, func() {
		_ = z.Close() // fails only when the caller has gone
		z.Reset(nil)
		gzips.Put(z)
	}
}

func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if name == "gzip" && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

func onThisMachine(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// envelope appends the beginning of a protobuf answer: who follows, and how long
// it is. The size bytes of the message come right behind it; what may stand
// behind the message is left out, being empty.
func envelope(to []byte, apiVersion, kind string, size int) []byte {
	to = append(to, protoMagic...)
	meta := 2 + uvarintSize(len(apiVersion)) + len(apiVersion) + uvarintSize(len(kind)) + len(kind)
	to = appendLength(to, unknownTypeMeta, meta)
	to = append(appendLength(to, typeMetaVersion, len(apiVersion)), apiVersion...)
	to = append(appendLength(to, typeMetaKind, len(kind)), kind...)
	return appendLength(to, unknownRaw, size)
}

func appendLength(to []byte, tag byte, size int) []byte {
	return binary.AppendUvarint(append(to, tag), uint64(size))
}

func uvarintSize(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// protoField is the size of a field with a length.
func protoField(size int) int { return 1 + uvarintSize(size) + size }

// partialOf is the metadata of an object, as an object of its own. What it holds
// is shared with the object.
func partialOf(o metav1.Object, version string) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{Kind: string(partialShape), APIVersion: metaGroup + "/" + version}}
	if accessor, ok := o.(metav1.ObjectMetaAccessor); ok {
		if meta, ok := accessor.GetObjectMeta().(*metav1.ObjectMeta); ok {
			p.ObjectMeta = *meta
		}
	}
	p.Annotations = withoutSeal(p.Annotations)
	return p
}

// answerObject writes an object that is nobody else's.
func (q *request) answerObject(code int, f form, o schema.Object) {
	switch f.shape {
	case partialShape:
		q.writeObject(q.w, q.r, code, f, partialOf(o, f.version))
	case tableShape:
		q.answerRow(code, f, o)
	default:
		q.writeObject(q.w, q.r, code, f, o)
	}
}

// answerRow writes an object as a Table of one row.
func (q *request) answerRow(code int, f form, o schema.Object) {
	t := q.emptyTable(f.version, metav1.ListMeta{ResourceVersion: o.GetResourceVersion()})
	t.ColumnDefinitions = q.res.columns.Definitions()
	include, err := includeObject(q.r.URL.Query())
	if err == nil {
		var row metav1.TableRow
		if row, err = q.row(o, nil, include, f.version); err == nil {
			t.Rows = append(t.Rows, row)
		}
	}
	if err != nil {
		q.fail(err)
		return
	}
	q.writeObject(q.w, q.r, code, f, t)
}
