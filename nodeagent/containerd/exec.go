package containerd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

var _ nodeagent.Execer = (*Runtime)(nil)

// maxExecOutput is how much of a command's output Exec returns; the rest is read
// and dropped.
const maxExecOutput = 10 << 10

// Exec runs a command in a running container as its user, with its environment,
// and returns its exit code and the first 10 KiB of what it wrote to standard
// output and error. A command that cannot be started is an error wrapping
// schema.ErrRefused; a container that does not run, schema.ErrNotFound. When ctx
// is done the command is killed, with all of its session.
func (r *Runtime) Exec(ctx context.Context, id string, argv []string) (int, []byte, error) {
	kept := &firstOutput{}
	x, err := r.newExecution(ctx, id, nodeagent.Command{Argv: argv, Stdout: kept, Stderr: kept})
	if err != nil {
		return 0, nil, err
	}
	code, err := x.run(ctx)
	if e := (*nodeagent.CommandError)(nil); errors.As(err, &e) {
		if text, ok := startFault(err); ok {
			err = fmt.Errorf("%s: %w", text, schema.ErrRefused)
		}
	}
	if err != nil {
		return 0, nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return code, kept.output(), nil
}

// A firstOutput keeps the first of what is written.
type firstOutput struct {
	mu   sync.Mutex
	kept []byte
}

func (o *firstOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p[:min(len(p), maxExecOutput-len(o.kept))]...)
	return len(p), nil
}

func (o *firstOutput) output() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept
}
