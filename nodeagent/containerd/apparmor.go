package containerd

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// defaultConfinement is the name under which containerd's default AppArmor
// profile is loaded into the kernel.
const defaultConfinement = "pawl-default"

// An appArmor is what the kernel has of AppArmor.
type appArmor struct {
	enabled bool
	// load makes sure that the default profile is in the kernel.
	load func(name string) error
	// loaded lists the kernel's profiles.
	loaded string
}

// findAppArmor looks whether the kernel confines programs by AppArmor profiles.
func findAppArmor() appArmor {
	text, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return appArmor{
		enabled: err == nil && strings.HasPrefix(string(text), "Y"),
		load:    apparmor.LoadDefaultProfile,
		loaded:  "/sys/kernel/security/apparmor/profiles",
	}
}

// confinement is the name of the container's AppArmor profile; "": none.
func (s security) confinement(a appArmor) (string, error) {
	kind := corev1.AppArmorProfileTypeRuntimeDefault
	switch {
	case s.apparmor != nil:
		kind = s.apparmor.Type
	case !a.enabled:
		return "", nil
	}
	if kind == corev1.AppArmorProfileTypeUnconfined {
		if !a.enabled {
			return "", nil
		}
		return "unconfined", nil
	}
	if !a.enabled {
		return "", fmt.Errorf("cannot enforce AppArmor: AppArmor is not enabled on the host: %w", schema.ErrRefused)
	}
	switch {
	case kind == corev1.AppArmorProfileTypeRuntimeDefault:
		if err := a.load(defaultConfinement); err != nil {
			return "", unavailable("load the default AppArmor profile", err)
		}
		return defaultConfinement, nil
	case kind == corev1.AppArmorProfileTypeLocalhost && s.apparmor.LocalhostProfile != nil:
		return *s.apparmor.LocalhostProfile, a.has(*s.apparmor.LocalhostProfile)
	default:
		return "", fmt.Errorf("AppArmor profile type %q: must be RuntimeDefault, Unconfined, or Localhost with a localhostProfile: %w", kind, schema.ErrRefused)
	}
}

// has says whether the kernel holds a profile. The error wraps
// schema.ErrNotFound when not: the container waits for it.
func (a appArmor) has(name string) error {
	f, err := os.Open(a.loaded)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("AppArmor profile %q is not loaded on this node: %w", name, schema.ErrNotFound)
	}
	if err != nil {
		return unavailable("list the AppArmor profiles", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() { // such as: cri-containerd (enforce)
		if at := strings.LastIndex(lines.Text(), " ("); at > 0 && lines.Text()[:at] == name {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return unavailable("list the AppArmor profiles", err)
	}
	return fmt.Errorf("AppArmor profile %q is not loaded on this node: %w", name, schema.ErrNotFound)
}
