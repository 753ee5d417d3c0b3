package containerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

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
// schema.ErrRefused; a container that does not run, schema.ErrNotFound.
func (r *Runtime) Exec(ctx context.Context, id string, argv []string) (int, []byte, error) {
	if len(argv) == 0 {
		return 0, nil, fmt.Errorf("exec in container %s: no command: %w", id, schema.ErrRefused)
	}
	rec, ok, err := r.record(ctx, id)
	if err != nil {
		return 0, nil, err
	}
	if !ok || rec.ended || rec.StartError != "" {
		return 0, nil, fmt.Errorf("exec in container %s: it does not run: %w", id, schema.ErrNotFound)
	}
	x := &execution{r: r, id: id, exec: "x" + rand.Text(), dir: filepath.Join(r.podDir(rec.uid), "io")}
	code, err := x.run(ctx, argv)
	if err != nil {
		return 0, nil, fmt.Errorf("exec in container %s: %w", id, err)
	}
	return code, x.output, nil
}

// An execution is one command in a container.
type execution struct {
	r        *Runtime
	id, exec string
	dir      string
	streams  []*os.File
	copies   sync.WaitGroup

	mu     sync.Mutex
	output []byte
}

func (x *execution) run(ctx context.Context, argv []string) (code int, err error) {
	process, err := x.process(ctx, argv)
	if err != nil {
		return 0, err
	}
	request := &tasks.ExecProcessRequest{ContainerID: x.id, ExecID: x.exec, Spec: process}
	request.Stdout, request.Stderr = filepath.Join(x.dir, x.exec+".out"), filepath.Join(x.dir, x.exec+".err")
	defer x.close(request.Stdout, request.Stderr)
	if err := x.open(request.Stdout, request.Stderr); err != nil {
		return 0, err
	}
	service := x.r.client.TaskService()
	if _, err := service.Exec(ctx, request); err != nil {
		return 0, x.fault("make the process", err)
	}
	defer func() { err = errors.Join(err, x.delete()) }()
	if _, err := service.Start(ctx, &tasks.StartRequest{ContainerID: x.id, ExecID: x.exec}); err != nil {
		return 0, x.fault("start it", err)
	}
	x.read()
	done, err := service.Wait(ctx, &tasks.WaitRequest{ContainerID: x.id, ExecID: x.exec})
	if err != nil {
		return 0, x.fault("wait for it", err)
	}
	return int(done.ExitStatus), nil
}

// process is the container's own, with another command.
func (x *execution) process(ctx context.Context, argv []string) (*anypb.Any, error) {
	c, err := x.r.client.ContainerService().Get(ctx, x.id)
	if err != nil {
		return nil, x.fault("read the container", err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &spec); err != nil || spec.Process == nil {
		return nil, fmt.Errorf("the container's spec is not valid: %w", schema.ErrRefused)
	}
	spec.Process.Args, spec.Process.Terminal = argv, false
	process, err := typeurl.MarshalAnyToProto(spec.Process)
	if err != nil {
		return nil, err
	}
	return process, nil
}

func (x *execution) open(paths ...string) error {
	for _, path := range paths {
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return fmt.Errorf("make FIFO: %w", err)
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		x.streams = append(x.streams, f)
	}
	return nil
}

// read copies output once the shim has opened its ends.
func (x *execution) read() {
	for _, f := range x.streams {
		x.copies.Go(func() {
			var buffer [4 << 10]byte
			for {
				n, err := f.Read(buffer[:])
				x.keep(buffer[:n])
				if err != nil && !errors.Is(err, syscall.EINTR) {
					return
				}
			}
		})
	}
}

func (x *execution) keep(p []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.output = append(x.output, p[:min(len(p), maxExecOutput-len(x.output))]...)
}

// delete ends the command, if it runs still, and forgets it.
func (x *execution) delete() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupWithin)
	defer cancel()
	service := x.r.client.TaskService()
	for range 2 {
		_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.id, ExecID: x.exec})
		if err = errgrpc.ToNative(err); err == nil || gone(err) || shimClosed(err) {
			break
		}
		_, err = service.Kill(ctx, &tasks.KillRequest{ContainerID: x.id, ExecID: x.exec, Signal: uint32(unix.SIGKILL)})
		if err = errgrpc.ToNative(err); err != nil && !finished(err) {
			return unavailable("end the command", err)
		}
		_, err = service.Wait(ctx, &tasks.WaitRequest{ContainerID: x.id, ExecID: x.exec})
		if err = errgrpc.ToNative(err); err != nil && !finished(err) {
			return unavailable("wait for the command's end", err)
		}
	}
	x.drain()
	return nil
}

// drain waits for the end of the output, but not for what a process that was
// left behind holds open.
func (x *execution) drain() {
	ended := make(chan struct{})
	go func() { x.copies.Wait(); close(ended) }()
	ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

func (x *execution) close(paths ...string) {
	for _, f := range x.streams {
		f.Close()
	}
	x.copies.Wait()
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			x.r.log.Warn("a FIFO is left", "path", path, "err", err)
		}
	}
}

func (x *execution) fault(what string, err error) error {
	err = errgrpc.ToNative(err)
	if text, ok := startFault(err); ok {
		return fmt.Errorf("%s: %w", text, schema.ErrRefused)
	}
	if gone(err) || shimClosed(err) {
		return fmt.Errorf("%s: it does not run: %w", what, schema.ErrNotFound)
	}
	return unavailable(what, err)
}
