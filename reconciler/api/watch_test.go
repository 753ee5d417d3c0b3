package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// A watched answer grows while it is read.
type watched struct {
	mu     sync.Mutex
	header http.Header
	body   bytes.Buffer
	ended  chan struct{}
}

func (w *watched) Header() http.Header { return w.header }
func (w *watched) WriteHeader(int)     {}
func (w *watched) Flush()              {}
func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.Write(b)
}

// text is what came so far, once nothing more comes.
func (w *watched) text() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.body.String()
}

// watch begins a watch within a bubble of synctest; it ends with the test.
func (d *door) watch(query string, accept ...string) *watched {
	ctx, cancel := context.WithCancel(access.WithUser(context.Background(), admin))
	w := &watched{header: http.Header{}, ended: make(chan struct{})}
	r := httptest.NewRequest("GET", "/api/v1/configmaps?watch=1&"+query, nil).WithContext(ctx)
	if accept != nil {
		r.Header.Set("Accept", accept[0])
	}
	go func() { defer close(w.ended); d.server.ServeHTTP(w, r) }()
	d.t.Cleanup(func() { cancel(); <-w.ended })
	return w
}

// bubble is a door without a network, for synctest.
func bubble(t *testing.T, window int) *door {
	d := &door{t: t, cache: cache.New(cache.Options{Window: window})}
	d.server = New(Options{Cache: d.cache, OpenSecret: openFixture})
	return d
}

// story is a watch in short: type, name and what the label says; of a bookmark
// the version.
func story(t *testing.T, text string) string {
	t.Helper()
	var out []string
	for line := range strings.Lines(text) {
		var e struct {
			Type   string
			Object metav1.PartialObjectMetadata
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		switch o := e.Object; e.Type {
		case "BOOKMARK":
			out = append(out, "BOOKMARK"+o.Annotations[metav1.InitialEventsAnnotationKey])
		case "ERROR":
			var s struct{ Object metav1.Status }
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("ERROR %d %s: %s", s.Object.Code, s.Object.Reason, s.Object.Message))
		default:
			out = append(out, e.Type+" "+o.Name+" "+o.Labels["value"])
		}
	}
	return strings.Join(out, "; ")
}

func (d *door) remove(name string) {
	d.cache.Delete(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: name}, 0)
}

func TestWatchBeginsWhereItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		v1 := d.put(configFixture("default", "a", "1"))
		d.put(configFixture("default", "b", "1"))
		fresh := d.watch("")
		any := d.watch("resourceVersion=0")
		from := d.watch(fmt.Sprint("resourceVersion=", v1))
		initial := d.watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
		none := d.watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan")
		old := d.watch("", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
		synctest.Wait()
		d.put(configFixture("default", "a", "2"))
		d.remove("b")
		for name, q := range map[string]struct {
			w    *watched
			want string
		}{
			"none":    {none, "MODIFIED a 2; DELETED b 1"},
			"fresh":   {fresh, "ADDED a 1; ADDED b 1; MODIFIED a 2; DELETED b 1"},
			"any":     {any, "ADDED a 1; ADDED b 1; MODIFIED a 2; DELETED b 1"},
			"from":    {from, "ADDED b 1; MODIFIED a 2; DELETED b 1"},
			"initial": {initial, "ADDED a 1; ADDED b 1; BOOKMARKtrue; MODIFIED a 2; DELETED b 1"},
			"partial": {old, "ADDED a 1; ADDED b 1; MODIFIED a 2; DELETED b 1"},
		} {
			if got := story(t, q.w.text()); got != q.want {
				t.Errorf("%s:\n got %s\nwant %s", name, got, q.want)
			}
		}
	})
}

func TestSelectorsOfAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		d.put(configFixture("default", "a", "blue"))
		labels := d.watch("labelSelector=value%3Dblue")
		fields := d.watch("fieldSelector=metadata.name%3Db")
		synctest.Wait()
		for _, value := range []string{"red", "blue", "blue2", "green"} {
			d.put(configFixture("default", "a", value))
		}
		d.put(configFixture("default", "b", "blue"))
		d.remove("a")
		d.put(configFixture("default", "b", "red"))
		d.remove("b")
		if got, want := story(t, labels.text()), "ADDED a blue; DELETED a blue; ADDED a blue; DELETED a blue; ADDED b blue; DELETED b blue"; got != want {
			t.Errorf("labels:\n got %s\nwant %s", got, want)
		}
		if got, want := story(t, fields.text()), "ADDED b blue; MODIFIED b red; DELETED b red"; got != want {
			t.Errorf("fields:\n got %s\nwant %s", got, want)
		}
		// Each event is newer than the one before it, also one that tells an old state.
		last := uint64(0)
		for line := range strings.Lines(labels.text()) {
			var e struct{ Object metav1.PartialObjectMetadata }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			v, err := strconv.ParseUint(e.Object.ResourceVersion, 10, 64)
			if err != nil || v <= last {
				t.Errorf("version %q after %d", e.Object.ResourceVersion, last)
			}
			last = v
		}
	})
}

func TestBookmarksTellAQuietWatchHowFarItHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		v := d.put(configFixture("default", "a", "1"))
		with := d.watch(fmt.Sprintf("allowWatchBookmarks=true&resourceVersion=%d&timeoutSeconds=150", v))
		without := d.watch(fmt.Sprintf("resourceVersion=%d&timeoutSeconds=150", v))
		synctest.Wait()
		began := time.Now()
		v = d.put(podFixture("default", "other", nil)) // of another kind: the watch hears nothing of it
		<-with.ended
		<-without.ended
		if took := time.Since(began); took != 150*time.Second {
			t.Error("a watch of 150 s took", took)
		}
		if got := story(t, with.text()); got != "BOOKMARK; BOOKMARK" {
			t.Error(got)
		}
		if !strings.Contains(with.text(), fmt.Sprintf(`"resourceVersion":"%d"`, v)) {
			t.Error("the bookmark is older than the cache:", with.text())
		}
		if got := without.text(); got != "" {
			t.Error(got)
		}
	})
}

func TestWatchThatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 2)
		first := d.put(configFixture("default", "a", "0"))
		for n := range 5 {
			d.put(configFixture("default", "a", fmt.Sprint(n+1)))
		}
		w := d.watch(fmt.Sprint("resourceVersion=", first))
		<-w.ended
		if got := story(t, w.text()); !strings.HasPrefix(got, "ERROR 410 Expired: too old resource version: "+fmt.Sprint(first)) {
			t.Error(got)
		}
		future := d.watch(fmt.Sprint("resourceVersion=", d.cache.Version()+10))
		<-future.ended
		if got := story(t, future.text()); !strings.HasPrefix(got, "ERROR 504 Timeout: Timeout: Too large resource version: ") {
			t.Error(got)
		}
	})
}

func TestShutdownEndsWatchesCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		w := d.watch("")
		synctest.Wait()
		d.server.Close()
		<-w.ended
		if w.text() != "" {
			t.Error(w.text())
		}
		<-d.watch("").ended
	})
}

func TestTableHasItsHeadersOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		const accept = "application/json;as=Table;g=meta.k8s.io;v=v1"
		d.put(configFixture("default", "a", "1"))
		var all []*watched
		for range 2 { // two, so that the frames are shared
			all = append(all, d.watch("includeObject=None", accept))
		}
		synctest.Wait()
		d.put(configFixture("default", "a", "2"))
		late := d.watch(fmt.Sprintf("resourceVersion=%d&includeObject=None", d.cache.Version()-1), accept)
		for n, w := range append(all, late) {
			lines := strings.Split(strings.TrimSpace(w.text()), "\n")
			for i, line := range lines {
				var e struct {
					Type   string
					Object metav1.Table
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				if headed := len(e.Object.ColumnDefinitions) > 0; headed != (i == 0) || len(e.Object.Rows) != 1 {
					t.Errorf("watcher %d, line %d: %s", n, i, line)
				}
			}
		}
	})
}

func TestProtobufFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		d.put(configFixture("default", "a", "1"))
		text := d.watch("allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", string(protoMedia)).text()
		var kinds []string
		for b := []byte(text); len(b) > 0; {
			size := binary.BigEndian.Uint32(b)
			var e metav1.WatchEvent
			if err := e.Unmarshal(b[4 : 4+size]); err != nil {
				t.Fatal(err)
			}
			o, _, err := codecs.UniversalDeserializer().Decode(e.Object.Raw, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, e.Type+" "+o.(*corev1.ConfigMap).Name)
			b = b[4+size:]
		}
		if got := strings.Join(kinds, "; "); got != "ADDED a; BOOKMARK " {
			t.Error(got)
		}
	})
}

func TestWatchedSecretsAreOpenedAndNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := bubble(t, 0)
		ctx, cancel := context.WithCancel(access.WithUser(t.Context(), admin))
		w := &watched{header: http.Header{}, ended: make(chan struct{})}
		go func() {
			defer close(w.ended)
			d.server.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/secrets?watch=1", nil).WithContext(ctx))
		}()
		synctest.Wait()
		d.put(secretFixture("hush", "sesame"))
		if text := w.text(); !strings.Contains(text, `"word":"c2VzYW1l"`) || strings.Contains(text, "pawl.dev/sealed") {
			t.Error(text)
		}
		if len(d.server.frames.made) != 0 {
			t.Error("an opened secret is kept")
		}
		cancel()
		<-w.ended
	})
}

// What is kept of events for further watchers is bounded, however large they are.
func TestKeptFramesAreBounded(t *testing.T) {
	const large = 1 << 20
	var f frames
	made := 0
	of := func(i *cache.Item) {
		text, err := f.of(frameKey{kind: watch.Modified, item: i}, func() ([]byte, error) { made++; return make([]byte, large), nil })
		if err != nil || len(text) != large {
			t.Fatal(len(text), err)
		}
	}
	items := make([]*cache.Item, 300)
	for n := range items {
		items[n] = new(cache.Item)
		of(items[n])
	}
	of(items[len(items)-1])
	if made != len(items) {
		t.Errorf("the newest was made %d times too often", made-len(items))
	}
	held := 0
	for _, x := range f.made {
		held += len(x.text)
	}
	if held > framesBytes || held != f.kept {
		t.Errorf("%d bytes are held and %d are counted, the most there may be is %d", held, f.kept, framesBytes)
	}
	if of(items[0]); made != len(items)+1 {
		t.Error("the oldest was kept")
	}
}

func TestAWatchOfTheLongestTimeDoesNotEndAtOnce(t *testing.T) {
	for _, seconds := range []int64{1, math.MaxInt64/int64(time.Second) + 1, math.MaxInt64} {
		if d := watchFor(&seconds); d < time.Second {
			t.Errorf("%d s: %s", seconds, d)
		}
	}
}

// An event that cannot be sent ends the watch, also when it is time for a
// bookmark meanwhile: that would say that the caller has had the event.
func TestNoBookmarkStandsForAnEventThatWasNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{t: t, cache: cache.New(cache.Options{})}
		d.server = New(Options{Cache: d.cache, OpenSecret: func(*corev1.Secret) (*corev1.Secret, error) {
			time.Sleep(2 * bookmarkEvery)
			return nil, errors.New("the key is away")
		}})
		w := &watched{header: http.Header{}, ended: make(chan struct{})}
		r := httptest.NewRequest("GET", "/api/v1/secrets?watch=1&resourceVersion=0&allowWatchBookmarks=true&timeoutSeconds=600", nil)
		go func() {
			defer close(w.ended)
			d.server.ServeHTTP(w, r.WithContext(access.WithUser(t.Context(), admin)))
		}()
		synctest.Wait()
		d.put(secretFixture("hush", "sesame"))
		<-w.ended
		if got := story(t, w.text()); !strings.HasPrefix(got, "ERROR 500 InternalError: ") {
			t.Error(got)
		}
	})
}
