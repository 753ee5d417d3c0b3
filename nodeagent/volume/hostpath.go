package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// setupHostPath makes what is missing where the type says so, and refuses what
// is of another kind (HostPathType in Kubernetes' API). What is not there wraps
// schema.ErrNotFound: the pod waits for it.
func setupHostPath(h *corev1.HostPathVolumeSource) error {
	if !filepath.IsAbs(h.Path) || slices.Contains(strings.Split(h.Path, "/"), "..") {
		return fmt.Errorf("hostPath %q: must be absolute, without '..': %w", h.Path, schema.ErrRefused)
	}
	want := corev1.HostPathUnset
	if h.Type != nil {
		want = *h.Type
	}
	info, err := os.Stat(h.Path)
	switch {
	case want == corev1.HostPathUnset && errors.Is(err, fs.ErrNotExist):
		// There is no check, but what is to be mounted must be there. containerd
		// makes it so for Kubernetes, and manifests rely on it.
		return hostPathMade(h.Path, os.MkdirAll(h.Path, 0o755))
	case want == corev1.HostPathUnset:
		return nil
	case err == nil:
		return checkHostPath(h.Path, want, info.Mode())
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("hostPath %s: %w: %w", h.Path, err, schema.ErrUnavailable)
	case want == corev1.HostPathDirectoryOrCreate:
		return hostPathMade(h.Path, os.MkdirAll(h.Path, 0o755))
	case want == corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err == nil {
			err = f.Close()
		}
		return hostPathMade(h.Path, err)
	default:
		return fmt.Errorf("hostPath type check failed: %s is not a %s: it is not there: %w", h.Path, hostPathWords[want], schema.ErrNotFound)
	}
}

func hostPathMade(path string, err error) error {
	if err != nil {
		return fmt.Errorf("hostPath %s: make it: %w: %w", path, err, schema.ErrUnavailable)
	}
	return nil
}

// hostPathWords are Kubernetes' for the kinds of files.
var hostPathWords = map[corev1.HostPathType]string{
	corev1.HostPathDirectory: "directory", corev1.HostPathDirectoryOrCreate: "directory",
	corev1.HostPathFile: "file", corev1.HostPathFileOrCreate: "file",
	corev1.HostPathSocket: "socket file", corev1.HostPathCharDev: "character device", corev1.HostPathBlockDev: "block device",
}

func checkHostPath(path string, want corev1.HostPathType, mode fs.FileMode) error {
	var ok bool
	switch want {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&fs.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&fs.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0
	default:
		return fmt.Errorf("hostPath type %q: there is no such type: %w", want, schema.ErrRefused)
	}
	if !ok {
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", path, hostPathWords[want], schema.ErrRefused)
	}
	return nil
}
