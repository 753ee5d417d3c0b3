package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// A process is a containerd that somebody started: this process, or one that
// was here before it.
type process struct {
	pid   int
	since time.Time     // when we began to know it
	dead  chan struct{} // closed when it has ended
	// killed: somebody, or the kernel for want of memory, ended it by KILL. Set
	// before dead is closed, of a child only.
	killed bool
}

// own follows a child. It must be waited for, or it stays a zombie.
func own(cmd *exec.Cmd) *process {
	p := &process{pid: cmd.Process.Pid, since: time.Now(), dead: make(chan struct{})}
	go func() {
		defer close(p.dead)
		// Why it ended stands in its log.
		_ = cmd.Wait()
		status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		p.killed = ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	}()
	return p
}

// follow follows a process that is not a child, by a descriptor for it: a
// number could be given to another process meanwhile.
func follow(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("follow process %d: %w", pid, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", pid))
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	p := &process{pid: pid, since: time.Now(), dead: make(chan struct{})}
	go func() {
		defer f.Close()
		defer close(p.dead)
		// Readable means ended. An error of the poller ends the wait early; the
		// loop then sees whether the process is there.
		for {
			err := raw.Read(func(fd uintptr) bool { return ended(int(fd)) })
			if err == nil || ended(fd) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return p, nil
}

// ended asks a pidfd without waiting.
func ended(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// healthy says whether it lives, and has for long enough to be trusted.
func (p *process) healthy() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.dead:
		return false
	default:
		return time.Since(p.since) > restartHealthy
	}
}

// end asks the process to end, and kills it after grace.
func (p *process) end(ctx context.Context, grace time.Duration) error {
	signal := unix.SIGTERM
	if grace <= 0 {
		signal = unix.SIGKILL
	}
	for {
		if closed(p.dead) {
			return nil // and its number may be another's
		}
		if err := unix.Kill(p.pid, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal containerd (pid %d): %w", p.pid, err)
		}
		t := time.NewTimer(max(grace, stopWithin))
		select {
		case <-p.dead:
			t.Stop()
			return nil
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		if signal == unix.SIGKILL {
			return fmt.Errorf("containerd (pid %d) does not die: %w", p.pid, schema.ErrUnavailable)
		}
		signal = unix.SIGKILL
	}
}
