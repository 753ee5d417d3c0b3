package containerd

import (
	"bytes"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// flushAt is how much is written at once: what a stream sends as one.
const flushAt = 32 << 10

// A logRecord is one line of a log file; its parts alias the line.
type logRecord struct {
	stamp  []byte
	stderr bool
	whole  bool // a line ends here
	text   []byte
}

// parseRecord reads a line without its end; false when it is not one of ours.
func parseRecord(line []byte) (rec logRecord, ok bool) {
	i := bytes.IndexByte(line, ' ')
	if i < len("2006-01-02T15:04:05Z") {
		return rec, false
	}
	rec.stamp, line = line[:i], line[i+1:]
	switch {
	case bytes.HasPrefix(line, []byte("stdout ")):
	case bytes.HasPrefix(line, []byte("stderr ")):
		rec.stderr = true
	default:
		return rec, false
	}
	line = line[len("stdout "):]
	if len(line) == 0 || len(line) > 1 && line[1] != ' ' {
		return rec, false
	}
	rec.whole = line[0] == 'F'
	if !rec.whole && line[0] != 'P' {
		return rec, false
	}
	if len(line) > 2 {
		rec.text = line[2:]
	}
	return rec, true
}

// A lineFilter turns records into what was asked for. Parts of a line are put
// together as they come, whichever stream they are of, as Kubernetes does.
type lineFilter struct {
	since      time.Time
	sinceStamp []byte // since as records have it; nil: all
	timestamps bool
	stdout     bool
	stderr     bool
	left       int64 // bytes that may be written; -1: any number

	out    io.Writer
	buffer []byte
	inside bool // of a line
}

// longAgo is more seconds than any log is old, and no more than a Duration holds.
const longAgo = 1 << 32

func filterOf(o *corev1.PodLogOptions, now time.Time) lineFilter {
	f := lineFilter{timestamps: o.Timestamps, stdout: true, stderr: true, left: -1}
	switch {
	case o.SinceTime != nil:
		f.since = o.SinceTime.Time
	case o.SinceSeconds != nil:
		f.since = now.Add(-time.Duration(min(*o.SinceSeconds, longAgo)) * time.Second)
	}
	if !f.since.IsZero() {
		f.sinceStamp = f.since.UTC().AppendFormat(nil, timeFormat)
	}
	if o.LimitBytes != nil {
		f.left = *o.LimitBytes
	}
	if o.Stream != nil {
		f.stdout, f.stderr = *o.Stream != corev1.LogStreamStderr, *o.Stream != corev1.LogStreamStdout
	}
	return f
}

// take takes whole records from p and says how much of it that was. more is
// false when the limit is reached.
func (f *lineFilter) take(p []byte) (used int, more bool, err error) {
	for f.left != 0 {
		i := bytes.IndexByte(p[used:], '\n')
		if i < 0 {
			return used, true, nil
		}
		if rec, ok := parseRecord(p[used : used+i]); ok {
			f.add(rec, rec.whole)
		}
		used += i + 1
		for len(f.buffer) >= flushAt {
			if err := f.write(flushAt); err != nil {
				return used, false, err
			}
		}
	}
	return used, false, f.flush()
}

// end takes what is left at the end: a record that was cut off.
func (f *lineFilter) end(p []byte) error {
	if rec, ok := parseRecord(p); ok {
		f.add(rec, false)
	}
	return f.flush()
}

func (f *lineFilter) add(rec logRecord, newline bool) {
	if rec.stderr && !f.stderr || !rec.stderr && !f.stdout || f.sinceStamp != nil && bytes.Compare(rec.stamp, f.sinceStamp) < 0 {
		return
	}
	before := len(f.buffer)
	if f.timestamps && !f.inside {
		f.buffer = append(append(f.buffer, rec.stamp...), ' ')
	}
	f.buffer = append(f.buffer, rec.text...)
	if newline {
		f.buffer = append(f.buffer, '\n')
	}
	f.inside = !newline
	if f.left >= 0 {
		n := min(int64(len(f.buffer)-before), f.left)
		f.buffer = f.buffer[:before+int(n)]
		f.left -= n
	}
}

// flush writes what is there.
func (f *lineFilter) flush() error {
	if len(f.buffer) == 0 {
		return nil
	}
	return f.write(len(f.buffer))
}

// write writes the first n bytes of the buffer.
func (f *lineFilter) write(n int) error {
	_, err := f.out.Write(f.buffer[:n])
	f.buffer = f.buffer[:copy(f.buffer, f.buffer[n:])]
	return err
}
