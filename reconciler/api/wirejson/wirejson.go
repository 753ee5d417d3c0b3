// Package wirejson writes the objects of Kubernetes as JSON, byte for byte as
// encoding/json does and several times as fast: the first list of ten thousand
// pods is nothing but this.
//
// It looks at a type once and makes a list of steps of it: which bytes come
// first, where the field is, how it is written. What is rare (interfaces, types
// that write themselves, maps of structs) it hands to encoding/json, so there is
// nothing that it cannot write and encoding/json can. It reads no JSON.
package wirejson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Marshal is json.Marshal of a pointer to a struct; of anything else too, slowly.
func Marshal(o any) ([]byte, error) {
	v := reflect.ValueOf(o)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Kind() != reflect.Struct {
		return json.Marshal(o)
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	b, err := writerOf(v.Type().Elem()).append((*buffer)[:0], v.UnsafePointer())
	if err != nil {
		return nil, err
	}
	const large = 256 << 10
	if cap(b) <= large {
		*buffer = b
	}
	return bytes.Clone(b), nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// A writer appends what is at a place in memory, of the type that it was made
// for. Places are passed instead of reflect's values because those are what
// encoding/json spends its time on; no place outlives the object it is in.
type writer struct {
	append func(b []byte, p unsafe.Pointer) ([]byte, error)
	empty  func(p unsafe.Pointer) bool // as omitempty has it; nil: never
}

var (
	known sync.Map // reflect.Type → *writer that is complete, with all that it refers to

	making sync.Mutex
	made   = map[reflect.Type]*writer{} // complete or not; making guards it

	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()
)

// writerOf finds the writer of a type, or makes it.
func writerOf(t reflect.Type) *writer {
	if w, ok := known.Load(t); ok {
		return w.(*writer)
	}
	making.Lock()
	defer making.Unlock()
	w := part(t)
	known.Store(t, w)
	return w
}

// part is the writer of a type within another, which it may be itself: then it is
// not complete yet.
func part(t reflect.Type) *writer {
	w := made[t]
	if w == nil {
		w = &writer{}
		made[t] = w
		*w = *makeWriter(t)
	}
	return w
}

func makeWriter(t reflect.Type) *writer {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return &writer{append: appendTime}
	case reflect.TypeFor[resource.Quantity]():
		return &writer{append: appendQuantity}
	case reflect.TypeFor[map[string]string]():
		return &writer{append: appendStrings, empty: func(p unsafe.Pointer) bool { return len(*(*map[string]string)(p)) == 0 }}
	case reflect.TypeFor[corev1.ResourceList]():
		return &writer{append: appendAmounts, empty: func(p unsafe.Pointer) bool { return len(*(*corev1.ResourceList)(p)) == 0 }}
	}
	if writesItself(t) {
		return slow(t)
	}
	switch t.Kind() {
	case reflect.String:
		return &writer{
			append: func(b []byte, p unsafe.Pointer) ([]byte, error) { return appendString(b, *(*string)(p)), nil },
			empty:  func(p unsafe.Pointer) bool { return *(*string)(p) == "" },
		}
	case reflect.Bool:
		return &writer{
			append: func(b []byte, p unsafe.Pointer) ([]byte, error) { return strconv.AppendBool(b, *(*bool)(p)), nil },
			empty:  func(p unsafe.Pointer) bool { return !*(*bool)(p) },
		}
	case reflect.Int32:
		return &writer{
			append: func(b []byte, p unsafe.Pointer) ([]byte, error) {
				return strconv.AppendInt(b, int64(*(*int32)(p)), 10), nil
			},
			empty: func(p unsafe.Pointer) bool { return *(*int32)(p) == 0 },
		}
	case reflect.Int64:
		return &writer{
			append: func(b []byte, p unsafe.Pointer) ([]byte, error) { return strconv.AppendInt(b, *(*int64)(p), 10), nil },
			empty:  func(p unsafe.Pointer) bool { return *(*int64)(p) == 0 },
		}
	case reflect.Pointer:
		return pointer(t)
	case reflect.Slice:
		return list(t)
	case reflect.Struct:
		return structure(t)
	}
	return slow(t)
}

func writesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(marshaler) || p.Implements(textMarshaler)
}

// slow leaves a type to encoding/json.
func slow(t reflect.Type) *writer {
	w := &writer{append: func(b []byte, p unsafe.Pointer) ([]byte, error) {
		text, err := json.Marshal(reflect.NewAt(t, p).Interface())
		return append(b, text...), err
	}}
	switch t.Kind() {
	case reflect.Struct:
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		w.empty = func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().Len() == 0 }
	default:
		w.empty = func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
	}
	return w
}

func pointer(t reflect.Type) *writer {
	to := part(t.Elem())
	return &writer{
		append: func(b []byte, p unsafe.Pointer) ([]byte, error) {
			at := *(*unsafe.Pointer)(p)
			if at == nil {
				return append(b, "null"...), nil
			}
			return to.append(b, at)
		},
		empty: func(p unsafe.Pointer) bool { return *(*unsafe.Pointer)(p) == nil },
	}
}

// A header is what every slice begins with in memory.
type header struct {
	first unsafe.Pointer
	count int
}

func list(t reflect.Type) *writer {
	if t.Elem().Kind() == reflect.Uint8 { // base64
		return slow(t)
	}
	of, size := part(t.Elem()), t.Elem().Size()
	return &writer{
		append: func(b []byte, p unsafe.Pointer) ([]byte, error) {
			h := (*header)(p)
			if h.first == nil {
				return append(b, "null"...), nil
			}
			b = append(b, '[')
			for n := range h.count {
				if n > 0 {
					b = append(b, ',')
				}
				var err error
				if b, err = of.append(b, unsafe.Add(h.first, uintptr(n)*size)); err != nil {
					return b, err
				}
			}
			return append(b, ']'), nil
		},
		empty: func(p unsafe.Pointer) bool { return (*header)(p).count == 0 },
	}
}

// A step writes one field of a struct.
type step struct {
	name   string // ,"name": with what stands around it
	offset uintptr
	of     *writer
	omit   func(p unsafe.Pointer) bool // nil: never; asked of the field
}

// structure lists the fields of a struct, those of embedded ones in their place.
// A struct in which two have one name is left to encoding/json, which knows who wins.
func structure(t reflect.Type) *writer {
	var steps []step
	seen := map[string]bool{}
	if !collect(t, 0, seen, &steps) {
		return slow(t)
	}
	return &writer{append: func(b []byte, p unsafe.Pointer) ([]byte, error) {
		b = append(b, '{')
		first := len(b)
		for i := range steps {
			s := &steps[i]
			at := unsafe.Add(p, s.offset)
			if s.omit != nil && s.omit(at) {
				continue
			}
			name := s.name
			if len(b) == first {
				name = name[1:]
			}
			b = append(b, name...)
			var err error
			if b, err = s.of.append(b, at); err != nil {
				return b, err
			}
		}
		return append(b, '}'), nil
	}}
}

// collect is false when a field has a form that Kubernetes does not use.
func collect(t reflect.Type, offset uintptr, seen map[string]bool, steps *[]step) bool {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if f.Anonymous && name == "" {
			if f.Type.Kind() != reflect.Struct || writesItself(f.Type) || !f.IsExported() || !collect(f.Type, offset+f.Offset, seen, steps) {
				return false
			}
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if !tagged || name == "" || seen[name] || strings.ContainsFunc(name, odd) {
			return false
		}
		seen[name] = true
		s := step{name: `,"` + name + `":`, offset: offset + f.Offset, of: part(f.Type)}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "", "inline":
			case "omitempty":
				s.omit = either(s.omit, omitEmpty(f.Type))
			case "omitzero":
				s.omit = either(s.omit, omitZero(f.Type))
			default:
				return false
			}
		}
		*steps = append(*steps, s)
	}
	return true
}

func odd(r rune) bool {
	return !(r == '-' || r == '_' || r == '$' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z')
}

func either(a, b func(unsafe.Pointer) bool) func(unsafe.Pointer) bool {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return func(p unsafe.Pointer) bool { return a(p) || b(p) }
}

// omitEmpty says whether a field is empty; nil for a struct, which never is.
func omitEmpty(t reflect.Type) func(unsafe.Pointer) bool {
	if t.Kind() == reflect.Struct {
		return nil
	}
	of := part(t)
	if of.empty == nil { // it refers to itself and is not complete
		return func(p unsafe.Pointer) bool { return of.empty != nil && of.empty(p) }
	}
	return of.empty
}

func omitZero(t reflect.Type) func(unsafe.Pointer) bool {
	if t == reflect.TypeFor[metav1.Time]() {
		return func(p unsafe.Pointer) bool { return (*metav1.Time)(p).IsZero() }
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[interface{ IsZero() bool }]()) {
		return func(p unsafe.Pointer) bool {
			return reflect.NewAt(t, p).Interface().(interface{ IsZero() bool }).IsZero()
		}
	}
	return func(p unsafe.Pointer) bool { return reflect.NewAt(t, p).Elem().IsZero() }
}

func appendTime(b []byte, p unsafe.Pointer) ([]byte, error) {
	t := (*metav1.Time)(p)
	if t.IsZero() {
		return append(b, "null"...), nil
	}
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, time.RFC3339)
	return append(b, '"'), nil
}

func appendQuantity(b []byte, p unsafe.Pointer) ([]byte, error) {
	text, err := (*resource.Quantity)(p).MarshalJSON()
	return append(b, text...), err
}

// names are reused: maps are written in the order of their keys.
var names = sync.Pool{New: func() any { n := make([]string, 0, 16); return &n }}

func appendStrings(b []byte, p unsafe.Pointer) ([]byte, error) {
	return appendMap(b, *(*map[string]string)(p), func(b []byte, v string) ([]byte, error) { return appendString(b, v), nil })
}

func appendAmounts(b []byte, p unsafe.Pointer) ([]byte, error) {
	return appendMap(b, *(*corev1.ResourceList)(p), func(b []byte, v resource.Quantity) ([]byte, error) {
		text, err := v.MarshalJSON()
		return append(b, text...), err
	})
}

func appendMap[K ~string, V any](b []byte, m map[K]V, value func([]byte, V) ([]byte, error)) ([]byte, error) {
	if m == nil {
		return append(b, "null"...), nil
	}
	pooled := names.Get().(*[]string)
	keys := (*pooled)[:0]
	defer func() {
		clear(keys)
		*pooled = keys
		names.Put(pooled)
	}()
	for k := range m {
		keys = append(keys, string(k))
	}
	slices.Sort(keys)
	b = append(b, '{')
	for n, k := range keys {
		if n > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		var err error
		if b, err = value(b, m[K(k)]); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// appendString writes text as encoding/json does, which escapes also what HTML
// would take for its own.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil { // a string always has a JSON form
				panic(err)
			}
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
