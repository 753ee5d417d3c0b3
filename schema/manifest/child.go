package manifest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// What the child that evaluates CUE from a repository may use.
const (
	childMarker = "PAWL_CUE_CHILD"
	childMemory = 1 << 30          // bytes of address space
	childCPU    = 5                // seconds
	childWall   = 10 * time.Second // from start to end
	childOutput = 64 << 20         // bytes of results
	childStderr = 4 << 10          // bytes of its last words
	// childDeaths is how many children a commit may kill before its remaining
	// CUE is refused unseen.
	childDeaths = 3
)

// A childRunner starts children. It holds no process between calls.
type childRunner struct{ argv []string }

func newChildRunner(argv []string) *childRunner {
	if len(argv) == 0 {
		// Not os.Executable: the file of this name may be another one after an upgrade.
		argv = []string{"/proc/self/exe"}
	}
	return &childRunner{argv: argv}
}

// errChildDied says that a child ended before its work. The manifest is to
// blame: its text says which limit it met.
type errChildDied struct {
	begun int // index of the request's item that was being evaluated; -1: none yet
	why   string
}

func (e *errChildDied) Error() string { return e.why }

// run evaluates one request. Results that came before an error are returned
// beside it.
func (r *childRunner) run(ctx context.Context, request *childRequest) ([]childResult, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, childWall)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.argv[0], r.argv[1:]...)
	cmd.Env = []string{childMarker + "=1", "GOTRACEBACK=none", "GOMAXPROCS=2"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	words := &lastWords{limit: childStderr}
	cmd.Stderr = words
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the CUE child: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the CUE child: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the CUE child: %w", errors.Join(err, schema.ErrUnavailable))
	}
	sent := make(chan error, 1) // written by the goroutine below, which ends when the pipe does
	go func() {
		defer stdin.Close()
		sent <- json.NewEncoder(stdin).Encode(request)
	}()
	results, begun, readErr := readResults(stdout, len(request.Instances)+len(request.Objects))
	if readErr != nil {
		_ = cmd.Cancel()
	}
	sendErr := <-sent
	waitErr := cmd.Wait()
	if parent.Err() != nil {
		return nil, parent.Err()
	}
	if readErr == nil && sendErr == nil && waitErr == nil {
		return results, nil
	}
	return results, &errChildDied{begun: begun, why: whyDied(ctx, readErr, waitErr, words.String())}
}

var errOutput = errors.New("too much output")

// readResults reads until every item is answered.
func readResults(r io.Reader, want int) (results []childResult, begun int, err error) {
	limited := &io.LimitedReader{R: r, N: childOutput}
	decoder := json.NewDecoder(bufio.NewReader(limited))
	begun = -1
	for len(results) < want {
		var one childResult
		if err := decoder.Decode(&one); err != nil {
			if limited.N <= 0 {
				err = errOutput
			}
			return results, begun, err
		}
		if one.Begin {
			begun = one.Index
			continue
		}
		results = append(results, one)
	}
	return results, begun, nil
}

// whyDied puts the end of a child into words for the author of the CUE.
func whyDied(ctx context.Context, readErr, waitErr error, words string) string {
	var exit *exec.ExitError
	switch {
	case errors.Is(readErr, errOutput):
		return fmt.Sprintf("its result is larger than %d MiB", childOutput>>20)
	case ctx.Err() != nil:
		return fmt.Sprintf("its evaluation takes longer than %d s", childWall/time.Second)
	case strings.Contains(words, "out of memory") || strings.Contains(words, "cannot allocate memory") || strings.Contains(words, "failed to allocate") || strings.Contains(words, "failed to create new OS thread"):
		return fmt.Sprintf("its evaluation needs more than %d MiB of memory", childMemory>>20)
	case strings.Contains(words, "stack exceeds") || strings.Contains(words, "stack overflow"):
		return "its evaluation never ends"
	case errors.As(waitErr, &exit) && exit.ProcessState.Sys().(syscall.WaitStatus).Signaled():
		return fmt.Sprintf("its evaluation takes more than %d s of CPU time", childCPU)
	}
	// Only what Go's runtime says of itself: a panic repeats values of the text.
	if first, _, _ := strings.Cut(strings.TrimSpace(words), "\n"); strings.HasPrefix(first, "fatal error: ") {
		return "its evaluation failed: " + short(first)
	}
	return "its evaluation failed"
}

// lastWords keeps the first bytes of what is written and swallows the rest.
type lastWords struct {
	limit int
	kept  []byte
}

func (t *lastWords) Write(p []byte) (int, error) {
	if room := t.limit - len(t.kept); room > 0 {
		t.kept = append(t.kept, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *lastWords) String() string { return string(t.kept) }
