package containerd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// A shim that is starting a process opens the process's FIFOs, waits for somebody
// to read each of them, and answers nothing about the whole pod meanwhile. When an
// agent is killed in that moment nobody reads: the shim waits for half a minute,
// and then gives the process up. So the next agent opens the reading ends of every
// FIFO that it finds before it asks any shim for anything. It does not read from
// them; who takes up a container's output opens its own.

// shimPatience is for how long a shim waits for the other end of a FIFO.
const shimPatience = 30 * time.Second

// holdOpen opens the reading ends of every FIFO that the pods of an earlier run
// have, until no shim can be waiting for them any more.
func (r *Runtime) holdOpen(uids []types.UID) {
	var held []*os.File
	for _, uid := range uids {
		dir := filepath.Join(r.podDir(uid), "io")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // half made, or gone
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".in") {
				continue // a shim opens these without waiting
			}
			f, err := os.OpenFile(filepath.Join(dir, e.Name()), os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				held = append(held, f)
			} else if !errors.Is(err, fs.ErrNotExist) {
				r.log.Warn("output that an earlier run left cannot be opened; its pod may take half a minute to answer", "pod", uid, "err", err)
			}
		}
	}
	r.workers.Go(func() {
		ctx, cancel := context.WithTimeout(r.life, shimPatience)
		defer cancel()
		<-ctx.Done()
		for _, f := range held {
			f.Close()
		}
	})
}
