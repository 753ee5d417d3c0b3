package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

var _ nodeagent.Runtime = (*Runtime)(nil)

// A Network gives pods their addresses. Both methods are idempotent.
type Network interface {
	// Attach connects the network namespace at the path and returns its address.
	Attach(ctx context.Context, uid types.UID, netns string) (ip string, err error)
	// Detach gives the address back and removes what Attach made.
	Detach(ctx context.Context, uid types.UID) error
}

// Options says what a Runtime works with.
type Options struct {
	Address  string  // containerd's socket
	State    string  // containerd's state directory, where it is ours alone; "": it is not
	Instance string  // label on everything it makes; only what carries it is touched
	DataDir  string  // logs go below DataDir/logs; DataDir/seccomp holds the node's own seccomp profiles
	RunDir   string  // pinned namespaces, FIFOs and sandbox records go below
	Network  Network // nil: pods get a network namespace with loopback alone
	// Mirrors names, per registry host, the URLs that are asked instead, in order;
	// the host itself is asked last, unless a mirror's answer was final.
	Mirrors map[string][]string
	// Pulls bounds the pulls at one time; 0 means 4.
	Pulls       int
	Snapshotter string // "" means overlayfs
	// PodPids is how many processes and threads a pod may have at a time; 0: as
	// many as the machine takes.
	PodPids int64
	// ImageGCHigh and ImageGCLow are how full, in per cent, the disk with the
	// images may be before unused ones are removed, and how full it is then;
	// 0 means 85 and 80. 100 for both: images are never removed.
	ImageGCHigh, ImageGCLow int
	// Trouble, when set, says what is wrong with a containerd that answers all the
	// same: the node is not ready then.
	Trouble func() error
	Logger  *slog.Logger

	pace  pace                            // of registries; zero: the usual one
	usage func(string) (diskUsage, error) // of the disk at a path; nil: the file system's own
}

// Runtime drives containerd. It is safe for concurrent use; calls for one pod
// wait for each other.
type Runtime struct {
	opts   Options
	client *client.Client
	log    *slog.Logger
	images *imageStore
	gc     *imageGC
	limits host

	life    context.Context // ends with Close; what goes on in the background hangs on it
	end     context.CancelFunc
	workers sync.WaitGroup // log readers, delayed bookkeeping

	locks  podLocks
	layers layers
	ranges sync.Mutex // held while a range of users is chosen

	mu      sync.Mutex
	loaded  bool                          // records holds everything of ours; false again after doubt
	records map[string]*record            // by container id
	dropped map[string]bool               // ids of what was removed since a list was asked for; nil: none is
	pods    map[types.UID]*podState       // by uid
	logs    map[string]*containerLog      // by container id: the readers of its output
	ids     map[types.UID]map[string]bool // container ids of a pod
	execs   map[string]bool               // commands of this run, by exec id
}

// podState is what is kept in memory of a pod, so that a look at it does not
// read files. The sandbox's record on disk is the truth.
type podState struct {
	sandbox *sandboxRecord // nil: none, or not read yet
}

var (
	validInstance = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)
	validUID      = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9]{0,62}[a-zA-Z0-9])?$`)
)

// New makes a Runtime; it does not wait for containerd. Close it after the
// context given to Watch has ended.
func New(o Options) (*Runtime, error) {
	if !validInstance.MatchString(o.Instance) {
		return nil, fmt.Errorf("instance %q: must be lower-case letters, digits and '-', at most 40: %w", o.Instance, schema.ErrRefused)
	}
	if !filepath.IsAbs(o.DataDir) || !filepath.IsAbs(o.RunDir) {
		return nil, fmt.Errorf("data and run directories must be absolute: %w", schema.ErrRefused)
	}
	for host, urls := range o.Mirrors {
		for _, u := range urls {
			if _, err := parseMirror(u); err != nil {
				return nil, fmt.Errorf("mirror of %s: %w", host, err)
			}
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default().With("room", "containerd")
	}
	if o.Snapshotter == "" {
		o.Snapshotter = "overlayfs"
	}
	for _, dir := range []string{filepath.Join(o.DataDir, "logs", "pods"), filepath.Join(o.RunDir, "pods")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make the runtime's directories: %w", err)
		}
	}
	if err := dropLooks(filepath.Join(o.RunDir, "looks")); err != nil {
		return nil, fmt.Errorf("clear where an earlier run looked into images: %w", err)
	}
	limits, err := lookAtHost(o.Logger)
	if err != nil {
		return nil, err
	}
	limits.profiles = filepath.Join(o.DataDir, "seccomp")
	c, err := dial(o.Address)
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", o.Address, err)
	}
	r := &Runtime{
		opts: o, client: c, log: o.Logger, limits: limits,
		records: map[string]*record{}, pods: map[types.UID]*podState{},
		logs: map[string]*containerLog{}, ids: map[types.UID]map[string]bool{},
	}
	r.life, r.end = context.WithCancel(context.Background())
	r.images = newImageStore(c, o)
	if r.gc, err = newImageGC(r.images, o); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close stops reading the containers' output and drops the connection.
// Containers go on; their output waits in the pipes for the next Runtime.
func (r *Runtime) Close() error {
	r.end()
	r.mu.Lock()
	for _, l := range r.logs {
		l.cut()
	}
	r.mu.Unlock()
	r.workers.Wait()
	r.images.close()
	return r.client.Close()
}

// Version is containerd's, such as "containerd://1.6.20".
func (r *Runtime) Version(ctx context.Context) (string, error) {
	if r.opts.Trouble != nil {
		if err := r.opts.Trouble(); err != nil {
			return "", err
		}
	}
	v, err := r.client.Version(ctx)
	if err != nil {
		return "", unavailable("ask containerd's version", err)
	}
	return "containerd://" + v.Version, nil
}

// checkUID keeps what becomes a file name harmless.
func checkUID(uid types.UID) error {
	if !validUID.MatchString(string(uid)) {
		return fmt.Errorf("pod uid %q: must be letters, digits and '-', at most 64: %w", uid, schema.ErrRefused)
	}
	return nil
}

// unavailable wraps an error of containerd: what it does not do now, it may do
// later.
func unavailable(what string, err error) error {
	return fmt.Errorf("%s: %s: %w", what, oneLine(err), schema.ErrUnavailable)
}

// podLocks is one lock per pod, there as long as somebody holds or wants it.
type podLocks struct {
	mu    sync.Mutex
	locks map[types.UID]*podLock
}

type podLock struct {
	held  chan struct{}
	users int
}

// lock waits for the pod's lock or the end of ctx.
func (p *podLocks) lock(ctx context.Context, uid types.UID) (unlock func(), err error) {
	p.mu.Lock()
	if p.locks == nil {
		p.locks = map[types.UID]*podLock{}
	}
	l := p.locks[uid]
	if l == nil {
		l = &podLock{held: make(chan struct{}, 1)}
		p.locks[uid] = l
	}
	l.users++
	p.mu.Unlock()
	leave := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(p.locks, uid)
		}
	}
	select {
	case l.held <- struct{}{}:
		return func() { <-l.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("wait for another call for pod %s: %w: %w", uid, ctx.Err(), schema.ErrUnavailable)
	}
}

// within bounds what a call may take when its caller did not.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if at, ok := ctx.Deadline(); ok && time.Until(at) < d {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// gone says whether containerd does not have it.
func gone(err error) bool { return errdefs.IsNotFound(err) }
