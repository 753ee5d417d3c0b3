package stream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// logBuffer gathers what a reader who does not follow is sent at a time, in bytes.
	logBuffer = 128 << 10
	// firstWait is how long a follower waits for the first bytes before it is told
	// that the log is being read. Until then an error can still be an answer.
	firstWait = 100 * time.Millisecond
)

// Log answers GET pods/{name}/log.
func (s *Streams) Log(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	leave, err := s.enterLog(r)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer leave()
	l, err := s.openLog(r, k)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	if l == nil {
		w.Header().Set("Content-Type", "text/plain")
		return
	}
	defer l.from.Close(nil)
	l.w, l.flush = w, http.NewResponseController(w).Flush
	// Whatever the server allows other requests, a log takes as long as it takes.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) //nolint:errcheck // a server without deadlines needs none taken away
	err = l.copy(r.Context())
	switch {
	case err == nil || r.Context().Err() != nil:
	case !l.started:
		writeError(w, nodeError(l.pod, err))
	default:
		s.o.Logger.Info("a log broke off", "pod", k, "error", err)
		// The only way left to say that this is not the end of the log.
		panic(http.ErrAbortHandler)
	}
}

// openLog opens the stream that a request asks for. It is nil for a pod that is
// on no node yet: its log is empty.
func (s *Streams) openLog(r *http.Request, k schema.PodKey) (*logCopy, error) {
	o, err := logOptions(k.Name, r.URL.Query())
	if err != nil {
		return nil, err
	}
	p, container, err := s.pod(k, o.Container)
	if err != nil || p.Spec.NodeName == "" {
		return nil, err
	}
	o.Container = container
	c, err := s.open(r.Context(), p, kv.StreamRequest{Verb: kv.StreamLog, Container: container, Log: o})
	if err != nil {
		return nil, err
	}
	return &logCopy{pod: p, from: c, follow: o.Follow}, nil
}

// A logCopy sends a log to its reader: what is followed as it comes, anything
// else in large pieces.
type logCopy struct {
	pod     *corev1.Pod
	from    Conn
	w       http.ResponseWriter
	flush   func() error
	follow  bool
	kind    string // content type; "": text
	started bool   // an answer has begun; it can no longer be an error
}

// start begins the answer.
func (l *logCopy) start() {
	if l.started {
		return
	}
	l.started = true
	if l.kind == "" {
		l.kind = "text/plain"
	}
	l.w.Header().Set("Content-Type", l.kind)
	l.w.Header().Set("X-Content-Type-Options", "nosniff")
	l.w.WriteHeader(http.StatusOK)
}

// copy sends the log until its end, which is no error.
func (l *logCopy) copy(ctx context.Context) error {
	data, err := l.first(ctx)
	buffer := bufio.NewWriterSize(l.w, logBuffer)
	for ; err == nil; _, data, err = l.from.Recv(ctx) {
		l.start()
		if _, err := buffer.Write(data); err != nil {
			return err
		}
		if l.follow {
			if err := errors.Join(buffer.Flush(), l.flush()); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) {
		l.start()
		return buffer.Flush()
	}
	if l.started { // what was read before is the reader's all the same
		err = errors.Join(err, buffer.Flush(), l.flush())
	}
	return err
}

// first waits for the first bytes. A follower's answer begins without them when
// they take long.
func (l *logCopy) first(ctx context.Context) ([]byte, error) {
	if l.follow {
		short, cancel := context.WithTimeout(ctx, firstWait)
		_, data, err := l.from.Recv(short)
		late := short.Err() != nil && errors.Is(err, context.DeadlineExceeded)
		cancel()
		if !late || ctx.Err() != nil {
			return data, err
		}
		l.start()
		if err := l.flush(); err != nil {
			return nil, err
		}
	}
	_, data, err := l.from.Recv(ctx)
	return data, err
}
