package containerd

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// begin notes a command as one of this run's; false when the Runtime is closed.
func (r *Runtime) begin(exec string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life.Err() != nil {
		return false
	}
	if r.execs == nil {
		r.execs = map[string]bool{}
	}
	r.execs[exec] = true
	return true
}

func (r *Runtime) finish(exec string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.execs, exec)
}

// clearLater goes on trying to end a command that could not be ended. What is
// left of it when this process ends, the next Runtime finds.
func (r *Runtime) clearLater(x *execution) {
	left := &execution{r: r, rec: x.rec, exec: x.exec, base: x.base, pid: x.pid, hangUp: x.hangUp, grace: x.grace}
	r.workers.Go(func() {
		for pause := settleAfter; wait(r.life, pause); pause = min(2*pause, settleMost) {
			if left.end() == nil {
				left.removeFIFOs()
				return
			}
		}
	})
}

// endLeftExecs ends the commands that an earlier run started and did not end,
// because it was killed. Their FIFOs tell of them: <container>.<exec>.<stream>.
func (r *Runtime) endLeftExecs(uids []types.UID) {
	left := map[string]*execution{}
	for _, uid := range uids {
		entries, err := os.ReadDir(filepath.Join(r.podDir(uid), "io"))
		if err != nil {
			continue // half made, or gone
		}
		for _, e := range entries {
			parts := strings.Split(e.Name(), ".")
			if len(parts) != 3 || !strings.HasPrefix(parts[1], "x") {
				continue
			}
			x := &execution{r: r, exec: parts[1], base: filepath.Join(r.podDir(uid), "io", parts[0]+"."+parts[1]), hangUp: unix.SIGHUP, grace: hangUpGrace}
			x.rec.ID, x.rec.uid = parts[0], uid
			left[x.exec] = x
		}
	}
	r.mu.Lock()
	for exec := range r.execs {
		delete(left, exec)
	}
	r.mu.Unlock()
	for _, x := range left {
		r.log.Info("ending a command that an earlier run left", "container", x.rec.ID, "exec", x.exec)
		r.workers.Go(func() {
			if x.end() != nil {
				r.clearLater(x)
				return
			}
			x.removeFIFOs()
		})
	}
}

// recall asks for the process of a command of which nobody here was told.
func (x *execution) recall(ctx context.Context) {
	response, err := x.r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: x.rec.ID, ExecID: x.exec})
	if err == nil {
		x.pid = int(response.Process.Pid)
	}
}
