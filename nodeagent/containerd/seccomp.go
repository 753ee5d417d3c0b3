package containerd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// maxProfile bounds a seccomp profile of the node's own, in bytes. Big ones have
// some ten thousand.
const maxProfile = 1 << 20

// nativeArch names, for machines that have 32-bit calls too, the other ones.
var nativeArch = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}

// filter is the container's seccomp filter; nil: none. profiles is where the
// node's own lie.
func (s security) filter(spec *specs.Spec, profiles string, bits32 bool) (*specs.LinuxSeccomp, error) {
	switch {
	case s.seccomp == nil || s.seccomp.Type == corev1.SeccompProfileTypeRuntimeDefault:
		filter := seccomp.DefaultProfile(spec)
		if native, ok := nativeArch[runtime.GOARCH]; ok && !bits32 {
			// Compiling the filter for the machine's 32-bit calls too is a quarter of
			// what a start costs, so only an image that can use them gets them.
			filter.Architectures = []specs.Arch{native}
		}
		return filter, nil
	case s.seccomp.Type == corev1.SeccompProfileTypeUnconfined:
		return nil, nil
	case s.seccomp.Type == corev1.SeccompProfileTypeLocalhost && s.seccomp.LocalhostProfile != nil:
		return localFilter(profiles, *s.seccomp.LocalhostProfile)
	default:
		return nil, fmt.Errorf("seccomp profile type %q: must be RuntimeDefault, Unconfined, or Localhost with a localhostProfile: %w", s.seccomp.Type, schema.ErrRefused)
	}
}

// localFilter reads a profile of the node's own, in the form of the OCI runtime
// specification (linux.seccomp). The error wraps schema.ErrNotFound when it is
// not there: the container waits for it.
func localFilter(profiles, name string) (*specs.LinuxSeccomp, error) {
	refuse := func(why error) error {
		return fmt.Errorf("seccomp profile %q of this node: %w: %w", name, why, schema.ErrRefused)
	}
	root, err := os.OpenRoot(profiles)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("seccomp profile %q: this node has no profiles in %s: %w", name, profiles, schema.ErrNotFound)
	}
	if err != nil {
		return nil, unavailable("open the node's seccomp profiles", err)
	}
	defer root.Close()
	f, err := root.Open(name) // follows no link that leads out
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("seccomp profile %q is not in %s of this node: %w", name, profiles, schema.ErrNotFound)
	}
	if err != nil {
		return nil, refuse(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return nil, refuse(err)
	}
	return parseFilter(text, refuse)
}

func parseFilter(text []byte, refuse func(error) error) (*specs.LinuxSeccomp, error) {
	if len(text) > maxProfile {
		return nil, refuse(fmt.Errorf("it has more than %d bytes", maxProfile))
	}
	filter := &specs.LinuxSeccomp{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // a misspelt rule would be a hole
	if err := d.Decode(filter); err != nil {
		return nil, refuse(err)
	}
	if filter.DefaultAction == "" {
		return nil, refuse(errors.New("it names no defaultAction"))
	}
	return filter, nil
}
