package api

import (
	"encoding/binary"
	"strconv"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// frames keeps the newest events as they go over the wire, so that an event is
// encoded once for all callers who asked in the same way. Nothing that was
// opened is kept.
type frames struct {
	mu   sync.Mutex
	made map[frameKey]*frame
	ring [256]frameKey // the keys of made, in the order they came
	next int
	kept int // bytes of all that are made
}

// framesBytes bounds what frames keep: objects may be large, and nobody says
// when the last caller has had its event.
const framesBytes = 4 << 20

type frameKey struct {
	kind    watch.EventType
	item    *cache.Item
	form    form
	include metav1.IncludeObjectPolicy
	headed  bool
}

type frame struct {
	once sync.Once
	text []byte
	err  error
	size int // as counted in kept; frames.mu guards it
}

// of returns the frame of a key, and makes it when it is the first to ask.
func (f *frames) of(k frameKey, make func() ([]byte, error)) ([]byte, error) {
	f.mu.Lock()
	made := f.made[k]
	if made == nil {
		made = f.add(k)
	}
	f.mu.Unlock()
	made.once.Do(func() {
		made.text, made.err = make()
		f.count(k, made)
	})
	return made.text, made.err
}

func (f *frames) add(k frameKey) *frame {
	if f.made == nil {
		f.made = map[frameKey]*frame{}
	}
	f.drop(f.next)
	f.ring[f.next] = k
	f.next = (f.next + 1) % len(f.ring)
	made := new(frame)
	f.made[k] = made
	return made
}

// count counts a frame that was made, and drops the oldest when there is too much.
func (f *frames) count(k frameKey, made *frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made[k] != made {
		return // it was dropped meanwhile
	}
	made.size = len(made.text)
	f.kept += made.size
	for n := 0; f.kept > framesBytes && n < len(f.ring); n++ {
		f.drop((f.next + n) % len(f.ring))
	}
}

// drop empties a place in the ring. f.mu is held.
func (f *frames) drop(at int) {
	if made := f.made[f.ring[at]]; made != nil {
		f.kept -= made.size
		delete(f.made, f.ring[at])
	}
	f.ring[at] = frameKey{}
}

// tell sends one event.
func (l *listener) tell(kind watch.EventType, i *cache.Item) error {
	text, err := l.frame(kind, i)
	if err != nil {
		return err
	}
	return l.write(text)
}

func (l *listener) write(text []byte) error {
	_, err := l.out.Write(text)
	l.headed = true
	return err
}

// frame is an event as it goes over the wire.
func (l *listener) frame(kind watch.EventType, i *cache.Item) ([]byte, error) {
	make := func() ([]byte, error) {
		o, err := l.res.object(i)
		if err != nil {
			return nil, err
		}
		return l.frameOf(kind, o, i)
	}
	if l.res.open != nil {
		return make()
	}
	return l.frames.of(frameKey{kind, i, l.form, l.include, l.form.shape == tableShape && l.headed}, make)
}

// frameOf encodes an event. The item, if there is one, gives what is encoded
// already.
func (l *listener) frameOf(kind watch.EventType, o schema.Object, i *cache.Item) ([]byte, error) {
	shared := i != nil && l.res.open == nil
	switch {
	case l.form.shape == partialShape:
		return l.frameAround(kind, partialOf(o, l.form.version))
	case l.form.shape == tableShape:
		t := l.emptyTable(l.form.version, metav1.ListMeta{ResourceVersion: o.GetResourceVersion()})
		if !l.headed {
			t.ColumnDefinitions = l.res.columns.Definitions()
		}
		row, err := l.row(o, i, l.include, l.form.version)
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, row)
		return l.frameAround(kind, t)
	case l.form.media == protoMedia && shared:
		raw := i.Proto()
		return frameProto(kind, append(envelope(nil, l.res.apiVersion(), l.res.gvk.Kind, len(raw)), raw...)), nil
	case shared:
		return frameJSON(kind, i.JSON()), nil
	}
	return l.frameAround(kind, o)
}

func (l *listener) frameAround(kind watch.EventType, o runtime.Object) ([]byte, error) {
	text, err := encode(o, l.form.media)
	if err != nil {
		return nil, err
	}
	if l.form.media == protoMedia {
		return frameProto(kind, text), nil
	}
	return frameJSON(kind, text), nil
}

// frameJSON is an event on one line.
func frameJSON(kind watch.EventType, object []byte) []byte {
	b := make([]byte, 0, len(object)+40)
	b = append(append(append(b, `{"type":"`...), kind...), `","object":`...)
	return append(append(b, object...), '}', '\n')
}

// frameProto is a metav1.WatchEvent behind its length in four bytes.
func frameProto(kind watch.EventType, object []byte) []byte {
	extension := protoField(len(object))
	size := protoField(len(kind)) + protoField(extension)
	b := make([]byte, 0, size+4)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = append(appendLength(b, watchEventType, len(kind)), kind...)
	b = appendLength(b, watchEventObject, extension)
	return append(appendLength(b, rawExtensionRaw, len(object)), object...)
}

// bookmark tells the caller that it has everything up to a version.
func (l *listener) bookmark(version uint64, annotations map[string]string) error {
	o := l.res.empty()
	o.SetResourceVersion(strconv.FormatUint(version, 10))
	o.SetAnnotations(annotations)
	text, err := l.frameOf(watch.Bookmark, o, nil)
	if err != nil {
		return err
	}
	return l.write(text)
}

// sendError ends a watch with what went wrong.
func (l *listener) sendError(err error) {
	status := statusOf(err, l.t.groupResource(), l.t.name)
	if text, err := l.frameAround(watch.Error, &status); err == nil {
		_, _ = l.out.Write(text) // nobody is left to tell when the caller has gone
	}
}

func copyOf(o schema.Object) schema.Object { return o.DeepCopyObject().(schema.Object) }
