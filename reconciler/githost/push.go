package githost

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxRefs     = 1000 // changed by one push
	maxRefBytes = 4096 // of one line: two hashes and a name
)

// A push is one push under way: a directory with the two FIFOs through which
// the hook asks and is answered.
type push struct {
	dir    string
	ask    *os.File // held open for both directions, so that neither side waits
	answer *os.File
	done   chan struct{} // closed when the conversation is over

	moves atomic.Bool // the deployed branch was accepted and is about to move
}

// A refChange is one line of what a push wants.
type refChange struct {
	old, new string // hashes; all zeros: the reference was not, or shall not be
	name     string // full: refs/heads/main
}

func zero(hash string) bool { return strings.Trim(hash, "0") == "" }

// A question is what the hook asks.
type question struct {
	quarantine string // an object directory
	changes    []refChange
}

func newPush(runDir string) (*push, error) {
	dir, err := os.MkdirTemp(runDir, pushDirPrefix)
	if err != nil {
		return nil, err
	}
	p := &push{dir: dir, done: make(chan struct{})}
	if p.ask, err = newFIFO(filepath.Join(dir, "ask")); err == nil {
		p.answer, err = newFIFO(filepath.Join(dir, "answer"))
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func newFIFO(path string) (*os.File, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("FIFO %s: %w", path, err)
	}
	return os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
}

// close ends the conversation: a hook that still waits reads the end of the
// file and refuses.
func (p *push) close() {
	if p.ask != nil {
		p.ask.Close()
	}
	if p.answer != nil {
		p.answer.Close()
	}
	os.RemoveAll(p.dir) // what stays is removed by the next New
}

// converse answers the hook when it asks. It returns when it has, or when the
// push is closed without a question: git refused on its own, or the client went.
//
// The error is of the answer: a hook that does not hear it refuses.
func (p *push) converse(judge func(question) verdict) error {
	defer close(p.done)
	q, err := p.read()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	var v verdict
	if err != nil {
		v.say("pawl: refused: %v; nothing was changed", err)
	} else {
		v = judge(q)
	}
	p.moves.Store(v.moves)
	var text strings.Builder
	for _, line := range v.lines {
		text.WriteString("> " + line + "\n")
	}
	if v.accepted {
		text.WriteString("accept\n")
	} else {
		text.WriteString("refuse\n")
	}
	// A hook that was killed reads nothing, and more than a pipe holds would wait.
	p.answer.SetWriteDeadline(time.Now().Add(30 * time.Second))
	_, err = io.WriteString(p.answer, text.String())
	return err
}

// read reads the hook's question, which ends with a line that is a dot.
func (p *push) read() (question, error) {
	var q question
	in := bufio.NewReaderSize(p.ask, maxRefBytes)
	line, err := readLine(in)
	if err != nil {
		return q, err
	}
	q.quarantine = line
	for {
		line, err := readLine(in)
		if err != nil {
			return q, err
		}
		if line == "." {
			return q, nil
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 {
			return q, errors.New("the hook sent a line that is not understood")
		}
		if len(q.changes) == maxRefs {
			return q, fmt.Errorf("more than %d references in one push", maxRefs)
		}
		q.changes = append(q.changes, refChange{old: fields[0], new: fields[1], name: fields[2]})
	}
}

func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", fmt.Errorf("a reference's name is longer than %d bytes", maxRefBytes)
	}
	if err != nil {
		return "", err
	}
	return string(line[:len(line)-1]), nil
}
