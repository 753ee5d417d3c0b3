package containerd

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// rootPropagation is what the container's root must have so that mounts
// propagate below it as far as one of its mounts asks for; "": the runtime's own.
//
// An error wraps schema.ErrRefused: the host's side of a mount takes no part in
// propagation, and the container would wait for mounts that never come.
func rootPropagation(mounts []nodeagent.Mount) (string, error) {
	root, table := "", []hostMount(nil)
	for _, m := range mounts {
		p := propagation(m)
		if p == "rprivate" {
			continue
		}
		if table == nil {
			text, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				return "", unavailable("list the mounts", err)
			}
			table = hostMounts(text)
		}
		if err := propagates(table, m.HostPath, p == "rshared"); err != nil {
			return "", err
		}
		if root != "rshared" {
			root = p
		}
	}
	return root, nil
}

// A hostMount is one line of mountinfo (proc(5)).
type hostMount struct {
	at            string
	shared, slave bool
}

// unescaped undoes what the kernel does to the bytes that would break the table.
var unescaped = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func hostMounts(mountinfo []byte) []hostMount {
	var table []hostMount
	for s := bufio.NewScanner(bytes.NewReader(mountinfo)); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 7 {
			continue
		}
		m := hostMount{at: unescaped.Replace(fields[4])}
		for _, f := range fields[6:] {
			if f == "-" {
				break
			}
			m.shared = m.shared || strings.HasPrefix(f, "shared:")
			m.slave = m.slave || strings.HasPrefix(f, "master:")
		}
		table = append(table, m)
	}
	return table
}

// propagates says why mounts below a path of the host do not propagate.
func propagates(table []hostMount, path string, both bool) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	on := hostMount{}
	for _, m := range table { // the last one at a place covers those before
		if len(m.at) >= len(on.at) && (m.at == "/" || path == m.at || strings.HasPrefix(path, m.at+"/")) {
			on = m
		}
	}
	switch {
	case on.shared, !both && on.slave:
		return nil
	case both:
		return fmt.Errorf("mountPropagation Bidirectional: %s is mounted on %s, which is not a shared mount (mount --make-rshared %s): %w", path, on.at, on.at, schema.ErrRefused)
	default:
		return fmt.Errorf("mountPropagation HostToContainer: %s is mounted on %s, which is neither a shared nor a slave mount (mount --make-rshared %s): %w", path, on.at, on.at, schema.ErrRefused)
	}
}
