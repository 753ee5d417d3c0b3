package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A container's output goes from its process through its shim into FIFOs, and
// from there, by this process, into its log. The shim holds both ends of each
// FIFO: when this process dies the container does not notice, until 64 KiB are
// waiting, and then its writes wait for the next Runtime. What waits there when
// the container ends and nobody reads is lost.

const (
	// maxLogFile is the size in bytes at which a log is rotated, and logFiles how
	// many files of a container are kept, the current one included.
	maxLogFile = 10 << 20
	logFiles   = 5
	// drainWithin bounds the wait for the end of a dead container's output. A
	// process that left the container's PID namespace may hold it open.
	drainWithin = 2 * time.Second
)

func (r *Runtime) logRoot() string { return filepath.Join(r.opts.DataDir, "logs", "pods") }

// longestName is what a file system takes as one name, in bytes.
const longestName = 255

// podLogDir is the kubelet's name for it: log collectors know it. Of a name that
// is too long for that, as much as fits; the uid tells pods apart.
func (r *Runtime) podLogDir(key schema.PodKey, uid types.UID) string {
	name := key.Namespace + "_" + key.Name
	name = name[:min(len(name), longestName-len("_")-len(uid))]
	return filepath.Join(r.logRoot(), name+"_"+string(uid))
}

func (r *Runtime) logPath(key schema.PodKey, uid types.UID, container string, attempt int) string {
	return filepath.Join(r.podLogDir(key, uid), container, strconv.Itoa(attempt)+".log")
}

func (r *Runtime) removePodLogs(uid types.UID) error {
	dirs, err := filepath.Glob(filepath.Join(r.logRoot(), "*_"+string(uid)))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	return nil
}

// removeLog removes a container's log, its rotated parts, and its folder when
// that was the last.
func removeLog(path string) error {
	if path == "" {
		return nil
	}
	for i := range logFiles {
		if err := os.Remove(rotated(path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Remove(filepath.Dir(path)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// A log that may be read by its group belongs to a container that was started:
// a mark that costs nothing and outlives the machine.
const (
	logFresh   = 0o600
	logStarted = 0o640
)

func (w *logWriter) markStarted() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil // it could not be written, and reopen sets it
	}
	return w.file.Chmod(logStarted)
}

// started says whether the container's process ever ran.
func started(rec record) bool {
	if !rec.StartedAt.IsZero() || rec.ended {
		return true
	}
	if info, err := os.Stat(rec.LogPath); err == nil && info.Mode().Perm() == logStarted {
		return true
	}
	_, err := os.Lstat(rotated(rec.LogPath, 1)) // it was being rotated when the agent was killed
	return err == nil
}

// lastOutput is when a container that was lost last wrote something: the best
// guess at when it ended.
func lastOutput(rec record, started time.Time) time.Time {
	if info, err := os.Stat(rec.LogPath); err == nil && info.ModTime().After(started) {
		return info.ModTime()
	}
	return started
}

// fifos are the paths of a container's output.
func (r *Runtime) fifos(uid types.UID, id string) (stdout, stderr string) {
	base := filepath.Join(r.podDir(uid), "io", id)
	return base + ".out", base + ".err"
}

// streamNames are the streams of a container in the order of its FIFOs.
var streamNames = []string{"stdout", "stderr"}

// A containerLog reads one container's output into its log.
type containerLog struct {
	writer  *logWriter
	streams []*os.File
	done    chan struct{} // closed when every stream has ended; the entry stays, so that it is read once
	readers sync.WaitGroup
}

// openLog opens the reading ends of a container's FIFOs and its log. Reading
// begins with read: until the shim has opened its ends they would seem to end.
func (r *Runtime) openLog(rec *record) (_ *containerLog, err error) {
	stdout, stderr := r.fifos(rec.uid, rec.ID)
	paths := []string{stdout, stderr}
	if rec.tty {
		paths = paths[:1]
	}
	l := &containerLog{done: make(chan struct{})}
	defer func() {
		if err != nil {
			l.cut()
		}
	}()
	for _, path := range paths {
		// Not blocking: the runtime's poller waits for it, and not a thread.
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open the container's output: %w", err)
		}
		l.streams = append(l.streams, f)
	}
	if err := os.MkdirAll(filepath.Dir(rec.LogPath), 0o755); err != nil {
		return nil, err
	}
	if l.writer, err = openLogWriter(rec.LogPath, r.log); err != nil {
		return nil, err
	}
	return l, nil
}

// makeFIFOs makes the FIFOs of a container anew.
func (r *Runtime) makeFIFOs(uid types.UID, id string, tty bool) error {
	stdout, stderr := r.fifos(uid, id)
	paths := []string{stdout, stderr}
	if tty {
		paths = paths[:1]
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("make FIFO %s: %w", path, err)
		}
	}
	return nil
}

func (r *Runtime) removeFIFOs(uid types.UID, id string) error {
	if err := r.removeInput(uid, id); err != nil {
		return err
	}
	stdout, stderr := r.fifos(uid, id)
	for _, path := range []string{stdout, stderr} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// read copies the output until it ends, in the background.
func (r *Runtime) read(id string, l *containerLog) {
	r.mu.Lock()
	if r.logs[id] != nil { // somebody was faster
		r.mu.Unlock()
		l.cut()
		l.writer.close()
		return
	}
	r.logs[id] = l
	r.mu.Unlock()
	for i, name := range streamNames[:len(l.streams)] {
		l.readers.Go(func() { l.writer.copy(name, l.streams[i]) })
	}
	r.workers.Go(func() {
		l.readers.Wait()
		l.cut()
		l.writer.close()
		close(l.done)
	})
}

// attach goes on reading the output of a container that runs, or has just ended,
// and that a Runtime before this one started.
func (r *Runtime) attach(rec record) {
	r.mu.Lock()
	_, reading := r.logs[rec.ID]
	r.mu.Unlock()
	if reading || r.life.Err() != nil {
		return
	}
	l, err := r.openLog(&rec)
	if err != nil {
		// Said once: what is gone (somebody emptied the run directory) stays gone.
		r.log.Warn("the output of a container cannot be read", "container", rec.ID, "err", err)
		l = &containerLog{writer: &logWriter{path: rec.LogPath, log: r.log}, done: make(chan struct{})}
	}
	if err := l.writer.markStarted(); err != nil { // somebody removed the log that had the mark
		r.log.Warn("that a container was started is not kept", "container", rec.ID, "err", err)
	}
	r.read(rec.ID, l)
}

// cut ends the reading; what is in the FIFOs stays there.
func (l *containerLog) cut() {
	for _, f := range l.streams {
		f.Close()
	}
}

// drained waits until a dead container's output has been read to its end.
func (r *Runtime) drained(id string) {
	r.mu.Lock()
	l := r.logs[id]
	r.mu.Unlock()
	if l == nil {
		return
	}
	t := time.NewTimer(drainWithin)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		r.log.Warn("the output of a dead container does not end; the rest is dropped", "container", id)
		l.cut()
		<-l.done
	}
}
