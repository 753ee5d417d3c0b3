package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// unused lists plugins of containerd 1.6 and 2.x that Pawl does not use: each
// would cost memory and time at start. A name that a version does not know does
// no harm.
var unused = []string{
	"io.containerd.grpc.v1.cri",
	"io.containerd.cri.v1.images",
	"io.containerd.cri.v1.runtime",
	"io.containerd.podsandbox.controller.v1.podsandbox",
	"io.containerd.internal.v1.opt",
	"io.containerd.internal.v1.restart",
	"io.containerd.internal.v1.tracing",
	"io.containerd.tracing.processor.v1.otlp",
	"io.containerd.monitor.v1.cgroups",
	"io.containerd.monitor.task.v1.cgroups",
	"io.containerd.monitor.container.v1.restart",
	"io.containerd.nri.v1.nri",
	"io.containerd.snapshotter.v1.aufs",
	"io.containerd.snapshotter.v1.blockfile",
	"io.containerd.snapshotter.v1.btrfs",
	"io.containerd.snapshotter.v1.devmapper",
	"io.containerd.snapshotter.v1.erofs",
	"io.containerd.snapshotter.v1.zfs",
	"io.containerd.differ.v1.erofs",
	"io.containerd.mount-handler.v1.erofs",
	"io.containerd.ttrpc.v1.otelttrpc",
}

// config is the daemon's configuration, in the format that 1.6 reads and 2.x
// converts. Everything it makes hangs below the two directories.
func (d *Daemon) config() string {
	var b bytes.Buffer
	fmt.Fprintln(&b, "# Written by pawld at each start of containerd.")
	fmt.Fprintln(&b, "version = 2")
	fmt.Fprintf(&b, "root = %s\n", strconv.Quote(filepath.Join(d.opts.DataDir, "root")))
	fmt.Fprintf(&b, "state = %s\n", strconv.Quote(d.State()))
	// An opt directory outside of ours is made even when its plugin is disabled.
	fmt.Fprintln(&b, "oom_score = 0")
	fmt.Fprintln(&b, "disabled_plugins = [")
	for _, p := range unused {
		fmt.Fprintf(&b, "  %s,\n", strconv.Quote(p))
	}
	fmt.Fprintln(&b, "]")
	fmt.Fprintf(&b, "[grpc]\n  address = %s\n", strconv.Quote(d.Address()))
	fmt.Fprintf(&b, "[ttrpc]\n  address = %s\n", strconv.Quote(d.Address()+".ttrpc"))
	fmt.Fprintln(&b, "[debug]\n  address = \"\"\n  level = \"warn\"")
	fmt.Fprintln(&b, "[metrics]\n  address = \"\"")
	return b.String()
}

const (
	// maxDaemonLog is the size at which containerd's log is moved aside; one
	// older part is kept.
	maxDaemonLog  = 8 << 20
	logCheckEvery = time.Minute
)

// boundLog moves a log that has grown too long aside. containerd holds the file
// open for appending, so it is copied and cut, not renamed.
func boundLog(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= maxDaemonLog {
		return nil
	}
	if err != nil {
		return err
	}
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path+".1", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	// What it writes between the copy and the cut is lost, which a log of
	// warnings can bear.
	_, err = io.Copy(to, io.LimitReader(from, 2*maxDaemonLog))
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

// lastLine is the end of a log, for an error message.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 1024
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	tail, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	tail = bytes.TrimSpace(tail)
	return string(tail[bytes.LastIndexByte(tail, '\n')+1:])
}

// writeFile replaces a file as a whole: a reader sees the old or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
