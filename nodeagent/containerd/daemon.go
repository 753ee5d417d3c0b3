package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

const (
	// startWithin bounds how long a started containerd may take to answer.
	startWithin = 20 * time.Second
	// stopWithin bounds how long it may take to end before it is killed.
	stopWithin = 10 * time.Second
	// The pause before a dead containerd is started again doubles with each
	// failure in a row, from restartFirst to restartMost; one that lived for
	// restartHealthy counts as no failure. After one that had answered, or was
	// killed before, it is at most restartSoon: nothing says that the next fails,
	// and pods wait for it. Only after restartOften in a row something does, and
	// the pause grows on.
	restartFirst   = 5 * time.Millisecond
	restartSoon    = 500 * time.Millisecond
	restartMost    = 10 * time.Second
	restartHealthy = 10 * time.Second
	restartOften   = 20
	// troubleFrom is how many failures in a row the node tells of.
	troubleFrom = 6
	// maxSocketPath is what fits into sockaddr_un; containerd appends ".ttrpc"
	// to its socket's name.
	maxSocketPath = 107 - len(".ttrpc")
)

// DaemonOptions says where a private containerd lives.
type DaemonOptions struct {
	DataDir string // its images, snapshots and records; survives the machine's restart
	RunDir  string // its socket, pid file and task state
	Binary  string // "" means containerd, from the PATH
	Logger  *slog.Logger
}

// Daemon is a private containerd. It lives in a session of its own and outlives
// the process that started it: the next Start finds it again.
type Daemon struct {
	opts DaemonOptions

	mu       sync.Mutex
	process  *process // the one that is known to have answered; nil before Start
	failures int      // in a row: deaths after a short life, starts that failed
}

// NewDaemon describes a daemon; nothing is started.
func NewDaemon(o DaemonOptions) *Daemon {
	if o.Binary == "" {
		o.Binary = "containerd"
	}
	if o.Logger == nil {
		o.Logger = slog.Default().With("room", "containerd")
	}
	return &Daemon{opts: o}
}

// Address is the socket on which it answers.
func (d *Daemon) Address() string { return filepath.Join(d.opts.RunDir, "containerd.sock") }

// State is its state directory.
func (d *Daemon) State() string { return filepath.Join(d.opts.RunDir, "state") }

func (d *Daemon) pidFile() string    { return filepath.Join(d.opts.RunDir, "containerd.pid") }
func (d *Daemon) configFile() string { return filepath.Join(d.opts.RunDir, "config.toml") }
func (d *Daemon) logFile() string    { return filepath.Join(d.opts.DataDir, "containerd.log") }

// Known says whether a daemon was ever started here, and so may hold something.
func (d *Daemon) Known() bool {
	_, err := os.Stat(filepath.Join(d.opts.DataDir, "root"))
	return err == nil
}

// Start attaches to the running daemon or starts one, and returns when it
// answers. Errors wrap schema.ErrRefused when the machine lacks something that
// no retry brings, else schema.ErrUnavailable.
func (d *Daemon) Start(ctx context.Context) error {
	if n := len(d.Address()); n > maxSocketPath {
		return fmt.Errorf("socket path %s has %d bytes and only %d fit: choose a shorter run directory: %w", d.Address(), n, maxSocketPath, schema.ErrRefused)
	}
	if p := d.running(); p != nil {
		if err := d.answers(ctx); err == nil {
			d.opts.Logger.Debug("attached to the running containerd", "pid", p.pid)
			d.keep(p)
			return nil
		}
		// It is ours, alive, and does not answer in startWithin: nothing but a new one helps.
		d.opts.Logger.Warn("containerd does not answer; it is replaced", "pid", p.pid)
		if err := p.end(ctx, stopWithin); err != nil {
			return err
		}
	}
	return d.spawn(ctx)
}

// Run keeps the daemon running until ctx is done and then leaves it alone.
func (d *Daemon) Run(ctx context.Context) error {
	for {
		d.mu.Lock()
		p := d.process
		d.mu.Unlock()
		if p == nil {
			return errors.New("run of a containerd that was not started")
		}
		if !d.watch(ctx, p) {
			return nil
		}
		d.opts.Logger.Warn("containerd died; starting it again", "pid", p.pid, "lived", time.Since(p.since).Round(time.Millisecond), "log", d.logFile())
		if !d.again(ctx, d.died(time.Since(p.since))) {
			return nil
		}
	}
}

// again starts a dead daemon until one runs; false when ctx is done.
func (d *Daemon) again(ctx context.Context, pause time.Duration) bool {
	for wait(ctx, pause) {
		err := d.spawn(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		pause = d.failed(err)
		d.opts.Logger.Error("containerd does not start", "err", err, "again in", pause)
	}
	return false
}

// died counts the death of one that had answered, and returns the pause before
// the next.
func (d *Daemon) died(lived time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if lived > restartHealthy {
		d.failures = 0
	}
	d.failures++
	return restartPause(d.failures, true)
}

// failed counts a start that failed.
func (d *Daemon) failed(err error) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	return restartPause(d.failures, errors.Is(err, errKilled))
}

// restartPause is the pause after so many failures in a row. hopeful: nothing
// says that the next fails.
func restartPause(failures int, hopeful bool) time.Duration {
	pause := min(restartFirst<<min(failures-1, 20), restartMost)
	if !hopeful {
		return pause
	}
	return min(pause, restartSoon<<min(max(failures-restartOften, 0), 20))
}

// Trouble says that the daemon dies again and again, though it may answer just
// now; nil when it does not.
func (d *Daemon) Trouble() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failures < troubleFrom || d.process.healthy() {
		return nil
	}
	return fmt.Errorf("containerd died or failed to start %d times in a row; its log is %s: %w", d.failures, d.logFile(), schema.ErrUnavailable)
}

// watch blocks until the process died (true) or ctx is done (false), and keeps
// the daemon's log within bounds meanwhile.
func (d *Daemon) watch(ctx context.Context, p *process) bool {
	tick := time.NewTicker(logCheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.dead:
			return ctx.Err() == nil
		case <-ctx.Done():
			return false
		case <-tick.C:
			if err := boundLog(d.logFile()); err != nil {
				d.opts.Logger.Warn("containerd's log cannot be shortened", "err", err)
			}
		}
	}
}

// Stop ends the daemon. Shims and containers are not its children: remove them
// before (Runtime.DestroyAll), they would live on.
func (d *Daemon) Stop(ctx context.Context) error {
	if p := d.running(); p != nil {
		if err := p.end(ctx, stopWithin); err != nil {
			return err
		}
	}
	return errors.Join(d.endShims(), d.forget())
}

func (d *Daemon) forget() error {
	for _, f := range []string{d.pidFile(), d.Address(), d.Address() + ".ttrpc"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *Daemon) keep(p *process) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process = p
}

// running is the daemon that the pid file names, if it lives and is ours.
func (d *Daemon) running() *process {
	text, err := os.ReadFile(d.pidFile())
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return nil
	}
	// The number may have been given to somebody else since.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(line), "\x00"+d.configFile()+"\x00") {
		return nil
	}
	p, err := follow(pid)
	if err != nil {
		return nil
	}
	return p
}

// spawn starts a containerd and returns when it answers.
func (d *Daemon) spawn(ctx context.Context) error {
	binary, err := exec.LookPath(d.opts.Binary)
	if err != nil {
		return fmt.Errorf("%w; install containerd and runc, or use a running one with --containerd: %w", err, schema.ErrRefused)
	}
	if err := d.prepare(); err != nil {
		return fmt.Errorf("prepare containerd's directories: %w", err)
	}
	logTo, err := os.OpenFile(d.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logTo.Close()
	cmd := exec.Command(binary, "--config", d.configFile(), "--log-level", "warn")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logTo, logTo
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w: %w", binary, err, schema.ErrUnavailable)
	}
	p := own(cmd)
	if err := writeFile(d.pidFile(), []byte(strconv.Itoa(p.pid)+"\n"), 0o644); err != nil {
		return errors.Join(err, p.end(ctx, 0))
	}
	answered, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.dead:
			cancel() // nobody is left to answer
		case <-answered.Done():
		}
	}()
	if err := d.answers(answered); err != nil {
		select {
		case <-p.dead:
			if p.killed {
				return errKilled
			}
			return fmt.Errorf("containerd ended at once: %s: %w", lastLine(d.logFile()), schema.ErrUnavailable)
		default:
		}
		if ctx.Err() != nil {
			return err // whoever starts next finds it
		}
		return errors.Join(err, p.end(ctx, 0))
	}
	d.opts.Logger.Info("containerd runs", "pid", p.pid, "took", time.Since(began).Round(time.Millisecond))
	d.keep(p)
	return nil
}

var errKilled = fmt.Errorf("containerd was killed while it started: %w", schema.ErrUnavailable)

// prepare makes the directories and writes the configuration.
func (d *Daemon) prepare() error {
	// containerd's database is readable by everybody, and holds every container's
	// environment: this directory is what keeps Secrets from other users.
	if err := os.MkdirAll(d.opts.DataDir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(d.opts.DataDir, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Join(d.opts.DataDir, "root"), d.opts.RunDir, filepath.Join(d.opts.RunDir, "state")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return writeFile(d.configFile(), []byte(d.config()), 0o600)
}

// answers waits until the daemon answers a call.
func (d *Daemon) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	c, err := dial(d.Address())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Version(ctx); err != nil {
		return fmt.Errorf("containerd at %s does not answer: %w: %w", d.Address(), err, schema.ErrUnavailable)
	}
	return nil
}

// wait pauses; false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
