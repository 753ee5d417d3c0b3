package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/pawl-project/pawl/reconciler/api/cache"
)

const (
	// bookmarkEvery is how often a quiet watch is told how far it has come.
	bookmarkEvery = time.Minute
	// watchAtLeast is how long a watch lasts whose caller does not say: so long,
	// and up to as long again, so that not all callers come back at once.
	watchAtLeast = 30 * time.Minute
	// longestWatch is what a time.Duration holds, in seconds.
	longestWatch = int64(math.MaxInt64 / time.Second)
)

// watch answers with events until the caller goes, its time is up, it is too far
// behind, or the server shuts down.
func (q *request) watch() {
	media := streamMedia
	if !q.res.proto {
		media = streamMedia[:1]
	}
	f, err := negotiate(q.r, offer{media, oneShapes})
	if err != nil {
		q.fail(err)
		return
	}
	o, err := q.options()
	if err != nil {
		q.fail(err)
		return
	}
	include, err := includeObject(q.r.URL.Query())
	if err != nil {
		q.fail(err)
		return
	}
	if o.SendInitialEvents != nil && *o.SendInitialEvents {
		if err := q.notOlderThan(o.ResourceVersion); err != nil {
			q.fail(err)
			return
		}
	}
	defer q.metrics.longRunning(q.w)()
	ctx, cancel := context.WithTimeout(q.r.Context(), watchFor(o.TimeoutSeconds))
	defer cancel()
	defer context.AfterFunc(q.open, cancel)()
	connection := http.NewResponseController(q.w)
	out := bufio.NewWriterSize(bounded{q.w, connection}, 4<<10)
	l := &listener{request: q, form: f, include: include, options: o, out: out, connection: connection}
	l.begin()
	l.run(ctx)
}

// watchFor is how long a watch lasts.
func watchFor(seconds *int64) time.Duration {
	if seconds != nil && *seconds > 0 {
		return time.Duration(min(*seconds, longestWatch)) * time.Second
	}
	return watchAtLeast + rand.N(watchAtLeast)
}

// A listener is one caller of a watch.
type listener struct {
	*request
	form       form
	include    metav1.IncludeObjectPolicy
	options    listOptions
	out        *bufio.Writer
	connection *http.ResponseController
	headed     bool // a Table's headers have been sent
}

// begin sends the answer's header, so that the caller knows the watch stands.
func (l *listener) begin() {
	kind := string(l.form.media)
	if l.form.media != jsonMedia {
		kind += ";stream=watch"
	}
	l.w.Header().Set("Content-Type", kind)
	l.w.Header().Set("Cache-Control", "no-cache, private")
	l.w.WriteHeader(http.StatusOK)
	_ = l.flush() // that the caller has gone shows at the next one
}

// flush sends what is gathered.
func (l *listener) flush() error {
	if err := l.out.Flush(); err != nil {
		return err
	}
	return l.connection.Flush()
}

func (l *listener) run(ctx context.Context) {
	if l.r.Method == http.MethodHead {
		return
	}
	from, err := l.initial()
	if err == nil {
		err = l.follow(ctx, from)
	}
	if err != nil && ctx.Err() == nil {
		l.sendError(err)
	}
	_ = l.flush()                                  // nobody is left to tell when the caller has gone
	_ = l.connection.SetWriteDeadline(time.Time{}) // the connection may carry further requests
}

// initial sends what is there already, if the caller is to have it, and returns
// the version from which events follow.
func (l *listener) initial() (uint64, error) {
	all := l.options.SendInitialEvents
	switch {
	case all == nil && l.options.version != 0:
		return l.options.version, nil
	case all != nil && !*all:
		if l.options.version != 0 {
			return l.options.version, nil
		}
		return l.Cache.Version(), nil
	}
	items, version := l.Cache.List(l.res.kind, l.t.namespace)
	for _, i := range items {
		if !l.options.filter.matches(i.Object()) {
			continue
		}
		o, err := l.res.object(i)
		if err != nil {
			return 0, err
		}
		text, err := l.frameOf(watch.Added, o, i) // not kept: others begin at other times
		if err == nil {
			err = l.write(text)
		}
		if err != nil {
			return 0, err
		}
	}
	if all != nil && l.options.AllowWatchBookmarks {
		if err := l.bookmark(version, map[string]string{metav1.InitialEventsAnnotationKey: "true"}); err != nil {
			return 0, err
		}
	}
	return version, l.flush()
}

// follow sends events after a version until ctx is done.
func (l *listener) follow(ctx context.Context, from uint64) error {
	w, err := l.Cache.Watch(l.res.kind, l.t.namespace, from)
	if err != nil {
		return tooOld(err, from, l.Cache.Version())
	}
	defer w.Close()
	for ctx.Err() == nil {
		round, cancel := context.WithTimeout(ctx, jitter(bookmarkEvery))
		err := l.send(round, w)
		cancel()
		if err == nil && ctx.Err() == nil {
			err = l.pass(w)
		}
		if err != nil {
			return tooOld(err, from, l.Cache.Version())
		}
	}
	return nil
}

// send sends events as they come until ctx is done.
func (l *listener) send(ctx context.Context, w *cache.Watcher) error {
	for ctx.Err() == nil {
		e, err := w.Next(ctx)
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = l.event(e)
		}
		if err == nil {
			err = l.rest(w) // what came meanwhile goes with it in one piece
		}
		if err == nil {
			err = l.flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// over is a context that is done: with it Next does not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// rest sends the events that are there already.
func (l *listener) rest(w *cache.Watcher) error {
	for {
		e, err := w.Next(over)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err == nil {
			err = l.event(e)
		}
		if err != nil {
			return err
		}
	}
}

// pass sends a bookmark, if the caller wants some.
func (l *listener) pass(w *cache.Watcher) error {
	if !l.options.AllowWatchBookmarks {
		return nil
	}
	if err := l.rest(w); err != nil {
		return err
	}
	if err := l.bookmark(w.Version(), nil); err != nil {
		return err
	}
	return l.flush()
}

func jitter(d time.Duration) time.Duration { return d - rand.N(d/8) }

// event sends what an event is to this caller: an object that begins or ceases
// to be wanted is one that comes or goes.
func (l *listener) event(e cache.Event) error {
	is := e.Type != watch.Deleted && l.options.filter.matches(e.Item.Object())
	was := e.Old != nil && l.options.filter.matches(e.Old.Object())
	switch {
	case is && was:
		return l.tell(watch.Modified, e.Item)
	case is:
		return l.tell(watch.Added, e.Item)
	case was && e.Type == watch.Deleted:
		return l.tell(watch.Deleted, e.Item)
	case was:
		return l.sendLast(e)
	}
	return nil
}

// tooOld is the error of a watch in Kubernetes' words.
func tooOld(err error, from, now uint64) error {
	if errors.Is(err, cache.ErrGone) {
		return apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", from, now))
	}
	if t := new(cache.TooLarge); errors.As(err, &t) {
		return tooLarge(t.Wanted, t.Current)
	}
	return err
}

// sendLast tells that an object is not wanted any more: as it was when it was
// wanted last, with the version of the change.
func (l *listener) sendLast(e cache.Event) error {
	o, err := l.res.object(e.Old)
	if err != nil {
		return err
	}
	o = copyOf(o)
	o.SetResourceVersion(strconv.FormatUint(e.Version, 10))
	frame, err := l.frameOf(watch.Deleted, o, nil)
	if err != nil {
		return err
	}
	return l.write(frame)
}
