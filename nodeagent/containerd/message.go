package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
)

// A container leaves its last words in a file of ours, which it sees at its
// terminationMessagePath. The file lies beside the container's log and goes with
// it. What is in it is the container's: only its end is read, and never through
// a link.

// labelMessageLog: the end of the log stands in for a message that is missing.
const labelMessageLog = "pawl.dev/message-log"

const (
	// logTailRead is how much of the end of a log is read for a message: its lines
	// are longer by their time and stream. The last two are whole in it, however long.
	logTailRead = 2*maxLine + 256
	// lastLineWithin is how long the end of the output of a container that just
	// ended is waited for.
	lastLineWithin = 200 * time.Millisecond
)

func messagePath(logPath string) string { return strings.TrimSuffix(logPath, ".log") + ".message" }

// messageMount makes the file of one attempt anew.
func messageMount(c *corev1.Container, logPath string) ([]nodeagent.Mount, error) {
	if c.TerminationMessagePath == "" {
		return nil, nil
	}
	file := messagePath(logPath)
	if err := os.MkdirAll(path.Dir(file), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, fmt.Errorf("make the file for the termination message: %w", err)
	}
	// Whoever the container runs as may write, whatever this process's umask is.
	if err := errors.Join(f.Chmod(0o666), f.Close()); err != nil {
		return nil, err
	}
	return []nodeagent.Mount{{HostPath: file, ContainerPath: path.Join("/", c.TerminationMessagePath)}}, nil
}

func messageLabels(c *corev1.Container) map[string]string {
	if c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		return map[string]string{labelMessageLog: "true"}
	}
	return nil
}

func removeMessage(logPath string) error {
	if logPath == "" {
		return nil
	}
	if err := os.Remove(messagePath(logPath)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// message is what an exited container left to say.
func (r *Runtime) message(rec record, c *pod.Container) string {
	if c.LogPath == "" || c.StartError != "" {
		return ""
	}
	text, err := tailOf(messagePath(c.LogPath), pod.MessageMost)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "Error on reading termination log: " + err.Error()
	case len(text) > 0 || !c.MessageLog || c.ExitCode == 0:
		return strings.ToValidUTF8(string(text), "\uFFFD")
	}
	r.awaitOutput(rec.ID, c.FinishedAt)
	text, err = tailOf(c.LogPath, logTailRead)
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(pod.MessageLines(recordsText(text)), "\uFFFD")
}

// awaitOutput waits a moment for the end of a container's output when it has
// only just ended.
func (r *Runtime) awaitOutput(id string, ended time.Time) {
	r.mu.Lock()
	l := r.logs[id]
	r.mu.Unlock()
	left := lastLineWithin - time.Since(ended)
	if l == nil || left <= 0 {
		return
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
}

// recordsText is what the container wrote, of the whole records in part of a log.
func recordsText(part []byte) string {
	var b strings.Builder
	for line := range bytes.Lines(part) {
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		rec, ok := parseRecord(line)
		if !whole || !ok {
			continue
		}
		b.Write(rec.text)
		if rec.whole {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// tailOf reads at most the last n bytes of a regular file.
func tailOf(file string, n int64) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", file)
	}
	return io.ReadAll(io.LimitReader(io.NewSectionReader(f, max(0, info.Size()-n), n), n))
}
