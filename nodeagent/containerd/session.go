package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A command that runc executes leads a session of its own. What it started is
// in that session, or descends from what is; a process that left both is not
// found, and lives as long as its container.

// A seenProcess is a process as /proc told of it. Its start tells it from one
// that was given the same number later.
type seenProcess struct {
	pid, parent, session int
	start                string
	dead                 bool // it has ended and was not waited for yet
}

// hang tells the command's session that nobody is there any more and gives it
// time to end.
func (x *execution) hang(ended <-chan struct{}) {
	if x.grace == 0 || x.pid == 0 {
		return
	}
	x.processes = x.family()
	x.signal(x.hangUp)
	t := time.NewTimer(x.grace)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
		return
	}
	looks := time.NewTicker(20 * time.Millisecond) // nobody tells of the others
	defer looks.Stop()
	for slices.ContainsFunc(x.processes, seenProcess.lives) {
		select {
		case <-looks.C:
		case <-t.C:
			return
		}
	}
}

// lives says whether the process has not ended yet.
func (p seenProcess) lives() bool {
	now, err := readProcess(p.pid)
	return err == nil && now.start == p.start && !now.dead
}

// killSession kills what is left of the command's session.
func (x *execution) killSession() {
	if x.pid == 0 {
		return
	}
	known := map[int]bool{}
	for _, p := range x.processes {
		known[p.pid] = true
	}
	for _, p := range x.family() { // what was started since
		if !known[p.pid] {
			x.processes = append(x.processes, p)
		}
	}
	x.signal(unix.SIGKILL)
}

func (x *execution) signal(s unix.Signal) {
	for _, p := range x.processes {
		if err := p.signal(s, x.rec.ID); err != nil {
			x.r.log.Warn("a process of a command cannot be ended", "pid", p.pid, "container", x.rec.ID, "err", err)
		}
	}
}

// signal signals the process if it is still the same, and in the container.
func (p seenProcess) signal(s unix.Signal, container string) error {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return nil // it is gone
	}
	defer unix.Close(fd)
	now, err := readProcess(p.pid)
	if err != nil || now.start != p.start || !alive(p.pid, container) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// family lists the processes of the container that belong to the command: its
// session, and descendants of what does.
func (x *execution) family() []seenProcess {
	all := x.r.containerProcesses(x.rec)
	found := map[int]bool{x.pid: true}
	var family []seenProcess
	for grew := true; grew; {
		grew = false
		for i, p := range all {
			if p.pid > 0 && (found[p.pid] || p.session == x.pid || found[p.parent]) {
				found[p.pid], grew = true, true
				family = append(family, p)
				all[i].pid = 0
			}
		}
	}
	return family
}

// containerProcesses lists what runs in a container's cgroup and below.
func (r *Runtime) containerProcesses(rec record) (all []seenProcess) {
	root := r.limits.cgroup["cpu"]
	if r.limits.v2() {
		root = r.limits.cgroup[""]
	}
	err := filepath.WalkDir(filepath.Join(root, r.containerCgroup(rec.uid, rec.ID)), func(dir string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it went while we looked
		}
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return nil
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 1 {
				continue
			}
			if p, err := readProcess(pid); err == nil {
				all = append(all, p)
			}
		}
		return nil
	})
	if err != nil {
		r.log.Warn("a container's processes cannot be listed", "container", rec.ID, "err", err)
	}
	return all
}

func readProcess(pid int) (seenProcess, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return seenProcess{}, err
	}
	return parseProcess(pid, string(stat))
}

func parseProcess(pid int, stat string) (seenProcess, error) {
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return seenProcess{}, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	p := seenProcess{pid: pid, start: fields[19], dead: fields[0] == "Z" || fields[0] == "X"}
	var err1, err2 error
	p.parent, err1 = strconv.Atoi(fields[1])
	p.session, err2 = strconv.Atoi(fields[3])
	return p, errors.Join(err1, err2)
}
