package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// maxLine is where a line of output is split: Kubernetes' 16 KiB.
	maxLine = 16 << 10
	// readSize is read at once; a pipe holds 64 KiB.
	readSize = 32 << 10
)

// A logWriter writes a container's output in the CRI log format:
//
//	2026-01-02T03:04:05.123456789Z stdout F a whole line
//	2026-01-02T03:04:05.123456789Z stderr P part of a line, more of it follows
type logWriter struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex // both streams write
	file   *os.File   // nil after an error, until the next write opens it again
	size   int64
	torn   bool // it ends within a record, which was cut off
	failed bool // and it was said
	// followers are told, by a token, that the log grew.
	followers map[chan struct{}]struct{}
	// taps are given the output as it is, after it was written here.
	taps map[*tap]struct{}
}

func openLogWriter(path string, log *slog.Logger) (*logWriter, error) {
	w := &logWriter{path: path, log: log}
	return w, w.open()
}

// open opens the log for appending: a Runtime that took over goes on in it.
func (w *logWriter) open() error {
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, logFresh)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size, w.torn = f, info.Size(), false
	if w.size > 0 {
		var last [1]byte // who wrote before us may have been killed in the midst of it
		_, err := f.ReadAt(last[:], w.size-1)
		w.torn = err != nil || last[0] != '\n'
	}
	return nil
}

// reopen begins or goes on with a log of which the container's output is known.
func (w *logWriter) reopen() error {
	if err := w.open(); err != nil {
		return err
	}
	return w.file.Chmod(logStarted)
}

func (w *logWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// buffers for reading and for formatting are borrowed only while there is
// output: a quiet container costs none.
var (
	readBuffers  = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}
	writeBuffers = sync.Pool{New: func() any { return &bytes.Buffer{} }}
)

// copy writes a stream's lines until the stream ends.
func (w *logWriter) copy(name string, stream *os.File) {
	raw, err := stream.SyscallConn()
	if err != nil {
		w.log.Warn("a container's output cannot be read", "log", w.path, "err", err)
		return
	}
	s := lines{name: name}
	for {
		more := true
		err := raw.Read(func(fd uintptr) bool {
			var again bool
			more, again = w.take(int(fd), &s)
			return !again
		})
		if err != nil || !more {
			break
		}
	}
	if len(s.part) > 0 {
		w.write(func(b *bytes.Buffer) { s.flush(b, time.Now()) })
	}
}

// take reads once. more is false at the end; again asks to wait for output.
func (w *logWriter) take(fd int, s *lines) (more, again bool) {
	buffer, _ := readBuffers.Get().(*[]byte)
	defer readBuffers.Put(buffer)
	n, err := syscall.Read(fd, *buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return true, true
	case errors.Is(err, syscall.EINTR):
		return true, false
	case err != nil || n <= 0:
		return false, false
	}
	now := time.Now()
	w.write(func(b *bytes.Buffer) { s.format(b, (*buffer)[:n], now) })
	w.tell(s.name, (*buffer)[:n])
	return true, false
}

// write appends what f formats, in one call. A log that cannot be written loses
// output, said once: a full disk must not stop containers.
func (w *logWriter) write(f func(*bytes.Buffer)) {
	b, _ := writeBuffers.Get().(*bytes.Buffer)
	defer writeBuffers.Put(b)
	b.Reset()
	f(b)
	if b.Len() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.append(b.Bytes())
	if err != nil && !w.failed {
		w.log.Error("a container's output is lost", "log", w.path, "err", err)
	}
	w.failed = err != nil
}

func (w *logWriter) append(p []byte) error {
	if w.size > 0 && w.size+int64(len(p)) > maxLogFile {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	if w.file == nil {
		if err := w.reopen(); err != nil {
			return err
		}
	}
	if w.torn {
		p = append([]byte{'\n'}, p...)
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	if n > 0 {
		w.torn = p[n-1] != '\n'
	}
	for c := range w.followers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return err
}

// subscribe returns a channel that holds a token when the log has grown since it
// was read.
func (w *logWriter) subscribe() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.followers == nil {
		w.followers = map[chan struct{}]struct{}{}
	}
	c := make(chan struct{}, 1)
	w.followers[c] = struct{}{}
	return c
}

func (w *logWriter) unsubscribe(c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.followers, c)
}

// rotate renames x.log to x.log.1, x.log.1 to x.log.2, and drops the oldest. The
// next write begins a new x.log.
func (w *logWriter) rotate() error {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	for i := logFiles - 1; i > 0; i-- {
		if err := os.Rename(rotated(w.path, i-1), rotated(w.path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate log: %w", err)
		}
	}
	w.size, w.torn = 0, false // also when the new one cannot be made: this is done
	return nil
}

// rotated is the name of the nth part of a log, the newest being 0.
func rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// lines cuts one stream into log lines.
type lines struct {
	name string
	part []byte // of a line that has not ended yet; less than maxLine
}

// format appends the lines that p completes to b.
func (s *lines) format(b *bytes.Buffer, p []byte, now time.Time) {
	var prefix [64]byte
	full := append(append(append(now.UTC().AppendFormat(prefix[:0], timeFormat), ' '), s.name...), " F "...)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i >= 0 && len(s.part)+i <= maxLine {
			b.Write(full)
			b.Write(s.part)
			b.Write(p[:i+1])
			s.part, p = s.part[:0], p[i+1:]
			continue
		}
		room := maxLine - len(s.part)
		if i < 0 && len(p) < room {
			s.part = append(s.part, p...)
			return
		}
		s.part = append(s.part, p[:room]...)
		p = p[room:]
		s.flush(b, now)
	}
	if cap(s.part) > 0 && len(s.part) == 0 {
		s.part = nil // a quiet container costs nothing
	}
}

// flush appends what there is of a line.
func (s *lines) flush(b *bytes.Buffer, now time.Time) {
	var stamp [40]byte
	b.Write(now.UTC().AppendFormat(stamp[:0], timeFormat))
	b.WriteByte(' ')
	b.WriteString(s.name)
	b.WriteString(" P ")
	b.Write(s.part)
	b.WriteByte('\n')
	s.part = s.part[:0]
}

// timeFormat has all nine digits, so that logs sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"
