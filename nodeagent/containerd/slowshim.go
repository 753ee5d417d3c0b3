package containerd

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// unknownPID is the first process of a container of which containerd says only
// that its state is unknown: its shim is gone, or did not answer within 2 s, as
// on a busy machine. Then containerd does not tell the process either, but runc
// has written it down. 0: there is none that lives.
func (r *Runtime) unknownPID(rec record, told int) int {
	for _, pid := range []int{told, r.runcPID(rec.ID)} {
		if alive(pid, rec.ID) {
			return pid
		}
	}
	return 0
}

// runcPID is what runc's own record tells; 0: there is none, or it is spoilt.
func (r *Runtime) runcPID(id string) int {
	text, err := os.ReadFile(filepath.Join(r.runcRoot(), namespace, id, "state.json"))
	if err != nil {
		return 0
	}
	return recordedPID(text)
}

func recordedPID(text []byte) int {
	var state struct {
		PID int `json:"init_process_pid"`
	}
	if json.Unmarshal(text, &state) != nil {
		return 0
	}
	return max(0, state.PID)
}

// runcWaits says whether runc has made a container's process and not begun its
// program yet: it holds the process back at a FIFO until then, by which runc
// itself tells a created container.
func (r *Runtime) runcWaits(id string) bool {
	_, err := os.Lstat(filepath.Join(r.runcRoot(), namespace, id, "exec.fifo"))
	return err == nil
}
