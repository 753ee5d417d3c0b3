package containerd

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
)

var _ nodeagent.Meter = (*Runtime)(nil)

// What containers take is read from their cgroups and not asked of containerd,
// which would ask each shim: three small files a container, and no process is
// waited for.

// Meter reads the counters of the machine and of what runs.
func (r *Runtime) Meter(ctx context.Context) (nodeagent.Counters, error) {
	if err := r.load(ctx); err != nil {
		return nodeagent.Counters{}, err
	}
	running := r.running()
	var read cgroupReader
	c := nodeagent.Counters{At: time.Now(), Containers: make([]nodeagent.ContainerCounter, 0, len(running))}
	var err error
	if c.Machine, err = r.limits.machine(&read); err != nil {
		return c, err
	}
	for _, rec := range running {
		counter, err := r.limits.counter(&read, r.containerCgroup(rec.uid, rec.ID))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errEnded) {
			continue // it has just ended, or does not run yet
		}
		if err != nil {
			return c, err
		}
		c.Containers = append(c.Containers, nodeagent.ContainerCounter{
			ID: rec.ID, UID: rec.uid, Pod: rec.key, Name: rec.Name, StartedAt: began(rec), Counter: counter,
		})
	}
	return c, nil
}

// running are copies of the records of containers not known to have ended.
func (r *Runtime) running() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]record, 0, len(r.records))
	for _, rec := range r.records {
		if !rec.ended && rec.StartError == "" {
			all = append(all, *rec)
		}
	}
	return all
}

// began is when the container was started, or a moment before.
func began(rec record) time.Time {
	if rec.StartedAt.IsZero() {
		return rec.CreatedAt
	}
	return rec.StartedAt
}

// counter reads a cgroup's counters.
func (h host) counter(read *cgroupReader, path string) (c nodeagent.Counter, err error) {
	if h.v2() {
		return h.counter2(read, filepath.Join(h.cgroup[""], path))
	}
	memory := filepath.Join(h.cgroup["memory"], path)
	if c.CPU, err = read.number(filepath.Join(h.cgroup["cpuacct"], path, "cpuacct.usage")); err != nil {
		return c, err
	}
	used, err := read.number(memory + "/memory.usage_in_bytes")
	if err != nil {
		return c, err
	}
	inactive, err := read.field(memory+"/memory.stat", "total_inactive_file")
	c.Memory = workingSet(used, inactive)
	return c, err
}

func (h host) counter2(read *cgroupReader, dir string) (c nodeagent.Counter, err error) {
	micros, err := read.field(dir+"/cpu.stat", "usage_usec")
	if err != nil {
		return c, err
	}
	c.CPU = micros * 1000
	used, err := read.number(dir + "/memory.current")
	if errors.Is(err, fs.ErrNotExist) && !h.memory2 {
		return c, nil // the machine counts no memory
	}
	if err != nil {
		return c, err
	}
	inactive, err := read.field(dir+"/memory.stat", "inactive_file")
	c.Memory = workingSet(used, inactive)
	return c, err
}

// machine reads what the whole machine takes. The root of v2 has no
// memory.current: what is not free is used, as the kernel counts it there.
func (h host) machine(read *cgroupReader) (c nodeagent.Counter, err error) {
	if !h.v2() {
		return h.counter(read, "/")
	}
	switch micros, err := read.field(h.cgroup[""]+"/cpu.stat", "usage_usec"); {
	case errors.Is(err, fs.ErrNotExist): // before Linux 5.8
		stat, err := read.file("/proc/stat")
		if err != nil {
			return c, err
		}
		c.CPU = busy(stat)
	case err != nil:
		return c, err
	default:
		c.CPU = micros * 1000
	}
	text, err := read.file("/proc/meminfo")
	if err != nil {
		return c, err
	}
	total, free, inactive := meminfo(text, "MemTotal"), meminfo(text, "MemFree"), meminfo(text, "Inactive(file)")
	c.Memory = workingSet(workingSet(total, free), inactive)
	return c, nil
}

// busy reads from /proc/stat for how many nanoseconds processors were not idle.
// Guests' time is in that of users already.
func busy(stat string) uint64 {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0
	}
	const tick = 10_000_000 // of the clock that the kernel counts for users with
	var sum uint64
	for _, i := range []int{1, 2, 3, 6, 7, 8} {
		n, _ := parseNumber(fields[i])
		sum += n * tick
	}
	return sum
}

// workingSet is used less inactive, and never below 0: the two are not read at
// one instant.
func workingSet(used, inactive uint64) uint64 {
	if inactive > used {
		return 0
	}
	return used - inactive
}

// errEnded: a file of a cgroup that is being removed.
var errEnded = errors.New("the cgroup is empty")

// A cgroupReader reads small files one after the other into one buffer.
type cgroupReader struct{ buffer []byte }

// file is what the file holds, until the next call.
func (r *cgroupReader) file(path string) (string, error) {
	if r.buffer == nil {
		r.buffer = make([]byte, 16<<10) // memory.stat has 1 to 2 KiB
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	n, err := io.ReadFull(f, r.buffer)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		if errors.Is(err, unix.ENODEV) {
			return "", errEnded
		}
		return "", err
	}
	return string(r.buffer[:n]), nil
}

func (r *cgroupReader) number(path string) (uint64, error) {
	text, err := r.file(path)
	if err != nil {
		return 0, err
	}
	n, ok := parseNumber(text)
	if !ok {
		return 0, errEnded
	}
	return n, nil
}

func (r *cgroupReader) field(path, name string) (uint64, error) {
	text, err := r.file(path)
	if err != nil {
		return 0, err
	}
	n, _ := parseField(text, name) // a kernel without the field has nothing of it
	return n, nil
}

// parseNumber reads a file of one number; "max" is none.
func parseNumber(text string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, false
	}
	return n, true
}

// parseField reads one line "name number" of a flat keyed file.
func parseField(text, name string) (uint64, bool) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok && strings.HasPrefix(rest, " ") {
			return parseNumber(rest)
		}
	}
	return 0, false
}

// meminfo reads one line "name:  number kB" of /proc/meminfo, in bytes; 0 when
// it is not there.
func meminfo(text, name string) uint64 {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name+":")
		if !ok {
			continue
		}
		kb, ok := parseNumber(strings.TrimSuffix(strings.TrimSpace(rest), "kB"))
		if !ok || kb > 1<<50 {
			return 0
		}
		return kb << 10
	}
	return 0
}
