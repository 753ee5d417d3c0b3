package githost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
)

// Prefix is the path of the repository's URL.
const Prefix = "/git/cluster.git"

// Options says what a Host serves and whom it asks.
type Options struct {
	Dir    string // the bare repository; made when missing
	RunDir string // for what lives as long as a push; emptied of leftovers by New
	Branch string // the deployed branch; "" means main
	Path   string // the folder of the tree that is deployed; "" means all of it

	// Guard lets only those through to the repository who may read it and push.
	// Nothing is served but behind it. The credential is not passed on to Git.
	Guard func(http.Handler) http.Handler

	// Check judges a commit before its push is accepted. A *schema.Refusal is
	// printed fault by fault; any other error refuses too and asks to try again.
	// The commit can be read until Check returns. Several may run at once.
	Check func(context.Context, schema.Commit) (warnings []schema.Fault, err error)
	// Pushed is told the deployed branch's new head as soon as it is there,
	// never twice the same in a row and never an older one after a newer one.
	// The push waits for it: it must return promptly.
	Pushed func(schema.Commit)
	// Refused, when set, is told of a commit that did not become the deployed
	// branch's head, without its tree. The push waits for it.
	Refused func(schema.Commit, *schema.Refusal)

	MaxPackBytes int64         // of one push, as sent; 0 means 64 MiB
	MaxPushes    int           // at once, the others wait; 0 means 4
	Idle         time.Duration // without a byte from the client until it is cut off; 0 means 1 minute
	CheckTimeout time.Duration // for one Check; 0 means 1 minute

	Logger *slog.Logger // nil means slog.Default()
}

// A Host serves one repository. It is an http.Handler for Prefix and below.
type Host struct {
	o          Options
	repository *gitsource.Repository
	backend    string        // path of the git-http-backend program
	git        string        // path of git
	guarded    http.Handler  // the repository behind Guard
	pushes     chan struct{} // holds a token per push under way
	fetches    chan struct{} // the same for everything else
	grown      chan struct{} // holds a token when a push came since the last look; wakes Run
	missed     chan struct{} // holds a token when a push could not be handed on; for Run
	orphans    []string      // quarantines of a former daemon's pushes; New sets it, then Run's
	log        *slog.Logger

	mu   sync.Mutex // guards last, and orders the calls of Pushed
	last string     // the head that was handed on last; "" before the first
}

// New makes the repository when it is missing, sets its configuration and its
// hook, and removes what a killed daemon left behind. It starts nothing.
func New(o Options) (*Host, error) {
	if err := complete(&o); err != nil {
		return nil, err
	}
	h := &Host{
		o:       o,
		pushes:  make(chan struct{}, o.MaxPushes),
		fetches: make(chan struct{}, 2*o.MaxPushes),
		grown:   make(chan struct{}, 1),
		missed:  make(chan struct{}, 1),
		log:     o.Logger.With("room", "githost"),
	}
	h.guarded = o.Guard(http.HandlerFunc(h.serve))
	var err error
	if h.git, h.backend, err = findGit(); err != nil {
		return nil, err
	}
	if err := h.prepare(); err != nil {
		return nil, fmt.Errorf("repository %s: %w", o.Dir, err)
	}
	if h.repository, err = gitsource.Open(o.Dir); err != nil {
		return nil, err
	}
	return h, nil
}

func complete(o *Options) error {
	switch {
	case o.Dir == "" || o.RunDir == "":
		return errors.New("githost: Dir and RunDir are needed")
	case o.Guard == nil:
		return errors.New("githost: Guard is needed")
	case o.Check == nil || o.Pushed == nil:
		return errors.New("githost: Check and Pushed are needed")
	}
	if o.Branch == "" {
		o.Branch = "main"
	}
	if o.MaxPackBytes == 0 {
		o.MaxPackBytes = 64 << 20
	}
	if o.MaxPushes == 0 {
		o.MaxPushes = 4
	}
	if o.Idle == 0 {
		o.Idle = time.Minute
	}
	if o.CheckTimeout == 0 {
		o.CheckTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	o.RunDir, err = filepath.Abs(o.RunDir)
	return err
}

// Head returns the commit that the deployed branch points at; false when
// nothing was pushed yet. Call it once at the start: a daemon that was killed
// may have accepted a push without handing it on. Pushed is not called for this
// commit again.
func (h *Host) Head(ctx context.Context) (schema.Commit, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok, err := h.head(ctx)
	if err == nil && ok {
		h.last = c.ID
	}
	return c, ok, err
}

func (h *Host) head(ctx context.Context) (schema.Commit, bool, error) {
	id, err := h.repository.Head(h.o.Branch)
	if errors.Is(err, schema.ErrNotFound) {
		return schema.Commit{}, false, nil
	}
	if err != nil {
		return schema.Commit{}, false, err
	}
	c, err := h.repository.Commit(ctx, id, h.o.Path)
	if err != nil {
		return schema.Commit{}, false, fmt.Errorf("head of %s: %w", h.o.Branch, err)
	}
	return c, true, nil
}

// Repository gives access to the commits of the repository: to its history and
// to what a commit that is not the head says.
func (h *Host) Repository() *gitsource.Repository { return h.repository }

// Close closes the repository's files. Call it when no request is served any more.
func (h *Host) Close() error { return h.repository.Close() }

// handOn calls Pushed when the deployed branch has moved since the last time,
// and then makes sure that the move is on disk: the pusher hears of it only
// after that, while the reconciler need not wait. Reading the reference and the
// call are one step, so that of several pushes the newest is always the last
// that is handed on.
func (h *Host) handOn(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	id, err := h.repository.Head(h.o.Branch)
	if errors.Is(err, schema.ErrNotFound) || err == nil && id == h.last {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := h.repository.Commit(ctx, id, h.o.Path)
	if err != nil {
		return fmt.Errorf("head of %s: %w", h.o.Branch, err)
	}
	h.last = id
	h.o.Pushed(c)
	return h.sync()
}

// sync makes the renamed reference durable. Git syncs the content of objects
// and references, but not the directories they are renamed into; a sync of one
// directory carries the file system's journal with every rename before it.
func (h *Host) sync() error {
	ref := filepath.Join(h.o.Dir, "refs", "heads", filepath.FromSlash(h.o.Branch))
	d, err := os.Open(filepath.Dir(ref))
	if errors.Is(err, os.ErrNotExist) { // packed a moment ago
		d, err = os.Open(h.o.Dir)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
