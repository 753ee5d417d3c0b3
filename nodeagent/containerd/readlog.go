package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

var _ nodeagent.Streamer = (*Runtime)(nil)

// readBlock is how much of a log is read at once, and more than a record takes.
const readBlock = 128 << 10

// A logReader reads a container's log: the files that it was rotated to, oldest
// first, and, when it is followed, what is written from then on. Files are known
// by their inodes: names move on with every rotation.
type logReader struct {
	r     *Runtime
	path  string
	files []*os.File // still to be read, oldest first; the first is being read
	live  *containerLog
	wake  chan struct{} // a token when the log grew; nil: it is not followed
	limit int64         // of the last file, in bytes: what was there when it was opened
	lines lineFilter
}

// OpenLog implements nodeagent.Streamer.
func (r *Runtime) OpenLog(ctx context.Context, id string, o *corev1.PodLogOptions) (nodeagent.Log, error) {
	rec, ok, err := r.record(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("log of container %s: there is no such container: %w", id, schema.ErrNotFound)
	}
	l := &logReader{r: r, path: rec.LogPath, lines: filterOf(o, time.Now())}
	if o.Follow {
		if err := l.follow(ctx, rec); err != nil {
			return nil, err
		}
	}
	if err := l.open(); err != nil {
		l.Close()
		return nil, fmt.Errorf("log of container %s: %w", id, err)
	}
	if o.TailLines != nil {
		if err := l.tail(*o.TailLines); err != nil {
			l.Close()
			return nil, fmt.Errorf("log of container %s: %w", id, err)
		}
	}
	return l, nil
}

// follow asks to be woken when the log grows. A container that has ended is read
// as it is.
func (l *logReader) follow(ctx context.Context, rec record) error {
	if _, err := l.r.state(ctx, rec); err != nil { // it takes up the output of what runs
		return err
	}
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.live = l.r.logs[rec.ID]
	if l.live != nil && l.live.writer != nil {
		l.wake = l.live.writer.subscribe()
	}
	return nil
}

// open opens what there is. The newest is opened first: what is rotated
// meanwhile is then met again, and nothing is missed.
func (l *logReader) open() error {
	for n := range logFiles {
		f, err := os.Open(rotated(l.path, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		if indexOf(l.files, info) >= 0 {
			f.Close()
			continue
		}
		if len(l.files) == 0 {
			l.limit = info.Size()
		}
		// What was last written before the time asked for holds nothing of interest.
		if len(l.files) > 0 && info.ModTime().Before(l.lines.since) {
			f.Close()
			break
		}
		l.files = append(l.files, f)
	}
	slices.Reverse(l.files)
	return nil
}

// indexOf finds a file by its inode; -1: it is not there.
func indexOf(files []*os.File, info os.FileInfo) int {
	return slices.IndexFunc(files, func(f *os.File) bool {
		other, err := f.Stat()
		return err == nil && os.SameFile(info, other)
	})
}

// tail leaves what holds the last n lines, and places the first file there. All
// of a long line counts as one line, though it has several records.
func (l *logReader) tail(n int64) error {
	t := tailFinder{want: n}
	for i := len(l.files) - 1; i >= 0; i-- {
		size := l.limit
		if i < len(l.files)-1 {
			info, err := l.files[i].Stat()
			if err != nil {
				return err
			}
			size = info.Size()
		}
		start, found, err := t.search(l.files[i], size)
		if err != nil {
			return err
		}
		if found {
			for _, f := range l.files[:i] {
				f.Close()
			}
			l.files = l.files[i:]
			_, err := l.files[0].Seek(start, io.SeekStart)
			return err
		}
	}
	return nil
}

// Close implements nodeagent.Log.
func (l *logReader) Close() error {
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
	if l.wake != nil {
		l.live.writer.unsubscribe(l.wake)
		l.wake = nil
	}
	return nil
}

// Copy implements nodeagent.Log.
func (l *logReader) Copy(ctx context.Context, w io.Writer) error {
	l.lines.out = w
	buffer := make([]byte, readBlock)
	held := 0 // bytes of a record that is not whole yet
	for ctx.Err() == nil {
		n, err := l.read(buffer[held:])
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read log: %w: %w", err, schema.ErrUnavailable)
		}
		held += n
		used, more, err := l.lines.take(buffer[:held])
		if err != nil || !more {
			return err
		}
		if used == 0 && held == len(buffer) {
			used = held // no record is this long: it is not ours
		}
		held = copy(buffer, buffer[used:held])
		if n > 0 {
			continue
		}
		if err := l.lines.flush(); err != nil {
			return err
		}
		more, moved, err := l.next(ctx)
		if err != nil {
			return err
		}
		if moved || !more { // a record that was cut off stays so
			err, held = l.lines.end(buffer[:held]), 0
		}
		if err != nil || !more {
			return err
		}
	}
	return context.Cause(ctx)
}

// read reads on in the first file; 0 at its end.
func (l *logReader) read(p []byte) (int, error) {
	if len(l.files) == 0 {
		return 0, nil
	}
	if l.wake == nil && len(l.files) == 1 { // to where it ended when it was opened
		at, err := l.files[0].Seek(0, io.SeekCurrent)
		if err != nil {
			return 0, err
		}
		p = p[:min(int64(len(p)), max(l.limit-at, 0))]
		if len(p) == 0 {
			return 0, nil
		}
	}
	return l.files[0].Read(p)
}

// next goes on when the first file has been read to its end: to the next file,
// or to what is written later. more is false when that was all; moved: another
// file is being read now.
func (l *logReader) next(ctx context.Context) (more, moved bool, err error) {
	if len(l.files) > 1 {
		l.files[0].Close()
		l.files = l.files[1:]
		return true, true, nil
	}
	if l.wake == nil {
		return false, false, nil
	}
	ended := closed(l.live.done) // asked before the file is: what came first is then there
	var current *os.File
	if len(l.files) > 0 {
		current = l.files[0]
	}
	if grew, err := l.grown(); err != nil || grew {
		return true, len(l.files) > 0 && l.files[0] != current, err
	}
	if ended {
		if l.r.life.Err() != nil {
			return false, false, fmt.Errorf("the node's agent is stopping: %w", schema.ErrUnavailable)
		}
		return false, false, nil
	}
	select {
	case <-l.wake:
	case <-l.live.done:
	case <-ctx.Done():
		return false, false, context.Cause(ctx)
	}
	return true, false, nil
}

// grown says whether there is more in the file that is being read, or looks for
// those that came after it. Who reads so slowly that a file is dropped before it
// was opened goes on with the oldest there is: the container does not wait.
func (l *logReader) grown() (bool, error) {
	if len(l.files) == 0 {
		err := l.open()
		return len(l.files) > 0, err
	}
	current := l.files[0]
	newest, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l.unread(current) // being rotated, or removed with its container
	}
	if err != nil {
		return false, err
	}
	info, err := current.Stat()
	if err != nil {
		return false, err
	}
	if os.SameFile(newest, info) {
		return l.unread(current)
	}
	// It was rotated. What was written just before is still to be read.
	if more, err := l.unread(current); more || err != nil {
		return more, err
	}
	l.files = nil
	if err := l.open(); err != nil {
		l.files = append(l.files, current)
		return false, err
	}
	later := l.files
	if i := indexOf(l.files, info); i >= 0 {
		later = l.files[i+1:]
		for _, f := range l.files[:i+1] {
			f.Close()
		}
	}
	if len(later) == 0 { // its successor was removed again, with the container
		l.files = []*os.File{current}
		return false, nil
	}
	l.files = later
	current.Close()
	return true, nil
}

func (l *logReader) unread(f *os.File) (bool, error) {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, err
	}
	info, err := f.Stat()
	return err == nil && info.Size() > at, err
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A tailFinder finds where the last lines of a log begin. It is given the files
// newest first.
type tailFinder struct {
	want, have int64
	passed     bool // the last record was seen
}

// search looks through the first size bytes of a file from their end.
func (t *tailFinder) search(f *os.File, size int64) (start int64, found bool, err error) {
	if t.want <= 0 {
		return size, true, nil
	}
	var rest []byte // the end of a record whose beginning lies before it
	buffer := make([]byte, readBlock)
	for at := size; at > 0; {
		n := min(at, readBlock/2)
		block := buffer[:n]
		if _, err := f.ReadAt(block, at-n); err != nil {
			return 0, false, err
		}
		at -= n
		block = append(block, rest...)
		for {
			i := bytes.LastIndexByte(block[:max(len(block)-1, 0)], '\n')
			if i < 0 {
				break
			}
			if t.record(block[i+1:]) {
				return at + int64(len(block)), true, nil
			}
			block = block[:i+1]
		}
		rest = append(rest[:0], block...)
		if len(rest) > readBlock/2 {
			rest = rest[:0] // no record is this long: it is not ours
		}
	}
	if len(rest) > 0 && t.record(rest) {
		return int64(len(rest)), true, nil
	}
	return 0, false, nil
}

// record takes the next record backwards, and says whether the lines asked for
// begin after it.
func (t *tailFinder) record(text []byte) bool {
	rec, ok := parseRecord(bytes.TrimSuffix(text, []byte{'\n'}))
	if !ok {
		return false
	}
	if t.passed && rec.whole {
		t.have++
	}
	t.passed = true
	return t.have == t.want
}
