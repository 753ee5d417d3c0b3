package githost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	slotWait  = 30 * time.Second // for a turn, when many push at once
	memoryKiB = 2 << 20          // address space of one git process, which maps what it reads
)

var gitProtocol = regexp.MustCompile(`^version=[0-2]$`)

// ServeHTTP implements http.Handler: smart HTTP for the repository, and nothing else.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.guarded.ServeHTTP(w, r) }

// serve is what lies behind Guard.
func (h *Host) serve(w http.ResponseWriter, r *http.Request) {
	service, ok := route(r)
	if !ok {
		http.Error(w, "not found: this is a Git repository, clone it", http.StatusNotFound)
		return
	}
	pushes := service == "git-receive-pack" && r.Method == http.MethodPost
	slots := h.fetches
	if pushes {
		slots = h.pushes
	}
	wait := time.NewTimer(slotWait)
	defer wait.Stop()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-r.Context().Done():
		return
	case <-wait.C:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many at once, try again", http.StatusServiceUnavailable)
		return
	}
	if pushes {
		h.servePush(w, r)
		return
	}
	h.backendFor(r, nil).ServeHTTP(h.stream(w, r, nil), h.request(w, r))
}

// route names the service of a request. Only smart HTTP is served.
func route(r *http.Request) (service string, ok bool) {
	path, ok := strings.CutPrefix(r.URL.Path, Prefix+"/")
	switch {
	case !ok:
		return "", false
	case path == "info/refs" && r.Method == http.MethodGet:
		service = r.URL.Query().Get("service")
	case r.Method == http.MethodPost:
		service = path
	}
	return service, service == "git-receive-pack" || service == "git-upload-pack"
}

// servePush serves the request that carries a push.
func (h *Host) servePush(w http.ResponseWriter, r *http.Request) {
	p, err := newPush(h.o.RunDir)
	if err != nil {
		h.log.Error("a push could not be prepared", "error", err)
		http.Error(w, "the push could not be prepared, try again", http.StatusServiceUnavailable)
		return
	}
	// Once the objects are here the push is decided, whether or not the client
	// still listens: it must never be accepted without being handed on.
	ctx := context.WithoutCancel(r.Context())
	go func() {
		if err := p.converse(func(q question) verdict { return h.judge(ctx, q) }); err != nil {
			h.log.Warn("a push could not be answered", "error", err)
		}
	}()
	handOn := func() {
		if !p.moves.Load() {
			return
		}
		if err := h.handOn(ctx); err != nil {
			h.log.Error("an accepted push could not be handed on", "error", err)
			select {
			case h.missed <- struct{}{}:
			default:
			}
		}
	}
	out := h.stream(w, r, handOn)
	in := h.request(w, r)
	h.backendFor(r, p).ServeHTTP(out, in)
	p.close()
	<-p.done
	handOn()
	select {
	case h.grown <- struct{}{}:
	default:
	}
	// Git stops reading a push that it refuses; a client that is still sending
	// would see a broken connection instead of the reason.
	if _, err := io.Copy(io.Discard, io.LimitReader(in.Body, 4*h.o.MaxPackBytes)); err != nil {
		h.log.Debug("the rest of a push", "error", err)
	}
}

// backendFor describes the process that serves r.
func (h *Host) backendFor(r *http.Request, p *push) *cgi.Handler {
	env := append(h.gitEnv(),
		"GIT_PROJECT_ROOT="+filepath.Dir(h.o.Dir),
		"PATH_INFO=/"+filepath.Base(h.o.Dir)+strings.TrimPrefix(r.URL.Path, Prefix),
		"GIT_HTTP_EXPORT_ALL=1",
		"REMOTE_USER=pawl",
	)
	if v := r.Header.Get("Git-Protocol"); gitProtocol.MatchString(v) {
		env = append(env, "GIT_PROTOCOL="+v)
	}
	b := &cgi.Handler{
		Path:   h.backend,
		Dir:    h.o.Dir,
		Env:    env,
		Logger: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		Stderr: &logWriter{log: h.log},
	}
	if p != nil {
		// The shell only lowers the limit and is then replaced. Nothing of the
		// request is in its arguments.
		b.Env = append(b.Env, pushDirEnv+"="+p.dir)
		b.Path, b.Args = "/bin/sh", []string{"-c", `ulimit -v "$1" && exec "$0"`, h.backend, fmt.Sprint(memoryKiB)}
	}
	return b
}

// request returns the request as the backend shall see it: without the
// credentials and the headers that it has no use for, and with a body that is
// cut off when the client is silent.
func (h *Host) request(w http.ResponseWriter, r *http.Request) *http.Request {
	in := &http.Request{
		Method:     r.Method,
		URL:        &url.URL{Path: r.URL.Path},
		Proto:      r.Proto,
		Header:     http.Header{},
		Host:       "localhost",
		RemoteAddr: r.RemoteAddr,
		Body:       &idleBody{body: r.Body, control: http.NewResponseController(w), idle: h.o.Idle},
	}
	for _, name := range []string{"Content-Type", "Content-Encoding", "Accept", "Accept-Encoding"} {
		if v := r.Header.Get(name); v != "" {
			in.Header.Set(name, v)
		}
	}
	if r.Method == http.MethodPost {
		// The length is kept from http-backend (which reads to the end of its
		// input then): when it knows the length and the body is cut short, it
		// turns in a loop for ever (2.39).
		in.ContentLength = -1
	} else {
		in.URL.RawQuery = "service=" + url.QueryEscape(r.URL.Query().Get("service"))
	}
	return in.WithContext(r.Context())
}

// idleBody fails when the client sends nothing for a while.
type idleBody struct {
	body    io.ReadCloser
	control *http.ResponseController
	idle    time.Duration
}

func (b *idleBody) Read(p []byte) (int, error) {
	if err := b.control.SetReadDeadline(time.Now().Add(b.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.body.Read(p)
	if err == io.EOF {
		b.control.SetReadDeadline(time.Time{}) // the answer may take longer
	}
	return n, err
}

func (b *idleBody) Close() error { return b.body.Close() }

// A stream passes the backend's words to the client at once. A client that went
// away is no reason to stop the backend half way: its words are dropped.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
	before  func() // called before each write; may be nil
	gone    bool
}

func (h *Host) stream(w http.ResponseWriter, r *http.Request, before func()) *stream {
	s := &stream{w: w, control: http.NewResponseController(w), idle: h.o.Idle, before: before}
	if r.ProtoMajor == 1 {
		// Git reports progress while the client still sends.
		if err := s.control.EnableFullDuplex(); err != nil {
			h.log.Debug("no full duplex", "error", err)
		}
	}
	return s
}

func (s *stream) Header() http.Header { return s.w.Header() }

func (s *stream) WriteHeader(status int) { s.w.WriteHeader(status) }

func (s *stream) Write(p []byte) (int, error) {
	if s.before != nil {
		s.before()
	}
	if s.gone {
		return len(p), nil
	}
	s.control.SetWriteDeadline(time.Now().Add(s.idle)) // not supported by every server: then there is none
	if _, err := s.w.Write(p); err != nil {
		s.gone = true
	} else if err := s.control.Flush(); err != nil {
		s.gone = true
	}
	return len(p), nil
}

// logWriter logs what git says on its standard error, bounded.
type logWriter struct {
	log  *slog.Logger
	mu   sync.Mutex // guards said
	said int
}

func (l *logWriter) Write(p []byte) (int, error) {
	const most = 8 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.said < most {
		l.log.Info("git", "stderr", strings.TrimSpace(string(p[:min(len(p), most-l.said)])))
	}
	l.said += len(p)
	return len(p), nil
}
