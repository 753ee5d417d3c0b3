package volume

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// A file is one file of a volume; group reading is added by fsGroup.
type file struct {
	data []byte
	mode int32 // permission bits
	user int64 // who owns it; 0: root
}

// files are by path below the volume.
type files map[string]file

// defaultMode of files when the volume names none.
const defaultMode = 0o644

// A filer finds out which files a volume has.
type filer struct {
	pod      *corev1.Pod
	objects  nodeagent.Objects
	capacity nodeCapacity
	token    tokenFunc
}

type nodeCapacity func() corev1.ResourceList

// volume lists the files of a volume of objects.
func (f filer) volume(vol *corev1.Volume) (files, error) {
	all := files{}
	var err error
	switch s := &vol.VolumeSource; {
	case s.ConfigMap != nil:
		err = f.configMap(all, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, modeOr(s.ConfigMap.DefaultMode, defaultMode))
	case s.Secret != nil:
		err = f.secret(all, s.Secret.SecretName, s.Secret.Items, s.Secret.Optional, modeOr(s.Secret.DefaultMode, defaultMode))
	case s.DownwardAPI != nil:
		err = f.downward(all, s.DownwardAPI.Items, modeOr(s.DownwardAPI.DefaultMode, defaultMode))
	case s.Projected != nil:
		err = f.projected(all, s.Projected)
	}
	if err != nil {
		return nil, err
	}
	return all, all.check()
}

// projected puts several sources together; where two name one path, the later wins.
func (f filer) projected(all files, p *corev1.ProjectedVolumeSource) error {
	mode := modeOr(p.DefaultMode, defaultMode)
	for i := range p.Sources {
		var err error
		switch s := &p.Sources[i]; {
		case s.ConfigMap != nil:
			err = f.configMap(all, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode)
		case s.Secret != nil:
			err = f.secret(all, s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode)
		case s.DownwardAPI != nil:
			err = f.downward(all, s.DownwardAPI.Items, mode)
		case s.ServiceAccountToken != nil:
			err = f.serviceAccountToken(all, s.ServiceAccountToken, mode)
		default:
			err = fmt.Errorf("projected source %d is not supported; there are configMap, secret, downwardAPI and serviceAccountToken: %w", i, schema.ErrRefused)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f filer) configMap(all files, name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	m, ok := f.objects.ConfigMap(f.pod.Namespace, name)
	if !ok {
		return absent(optional, "configmap %q not found", name)
	}
	data := make(map[string][]byte, len(m.Data)+len(m.BinaryData))
	for k, text := range m.Data {
		data[k] = []byte(text)
	}
	maps.Copy(data, m.BinaryData)
	return pick(all, data, items, optional, mode, fmt.Sprintf("configmap %q", name))
}

func (f filer) secret(all files, name string, items []corev1.KeyToPath, optional *bool, mode int32) error {
	s, ok := f.objects.Secret(f.pod.Namespace, name)
	if !ok {
		return absent(optional, "secret %q not found", name)
	}
	data := make(map[string][]byte, len(s.Data)+len(s.StringData))
	maps.Copy(data, s.Data)
	for k, text := range s.StringData {
		data[k] = []byte(text)
	}
	return pick(all, data, items, optional, mode, fmt.Sprintf("secret %q", name))
}

// pick adds the entries that items name, or all of them.
func pick(all files, data map[string][]byte, items []corev1.KeyToPath, optional *bool, mode int32, whose string) error {
	if len(items) == 0 {
		for k, d := range data {
			if err := checkKey(k); err != nil {
				return fmt.Errorf("%s: %w", whose, err)
			}
			all[k] = file{data: d, mode: mode}
		}
		return nil
	}
	for _, item := range items {
		d, ok := data[item.Key]
		if !ok {
			if err := absent(optional, "%s has no key %q", whose, item.Key); err != nil {
				return err
			}
			continue
		}
		at, err := cleanPath(item.Path)
		if err != nil {
			return fmt.Errorf("%s: path of key %q: %w", whose, item.Key, err)
		}
		all[at] = file{data: d, mode: modeOr(item.Mode, mode)}
	}
	return nil
}

// absent is the error for what is not there, nil when it is optional.
func absent(optional *bool, format string, args ...any) error {
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, schema.ErrNotFound)...)
}

func modeOr(mode *int32, otherwise int32) int32 {
	if mode == nil {
		return otherwise & 0o777
	}
	return *mode & 0o777
}

const (
	maxNameLen = 255  // the kernel's bound on one name, in bytes
	maxPathLen = 1024 // bytes; there is room for the volume's own path before it
	maxNames   = 32   // in one path: each costs a look from the volume's root
)

// checkKey refuses a key that cannot be a file's name in a volume.
func checkKey(key string) error {
	if at, err := cleanPath(key); err != nil || at != key || strings.Contains(key, "/") {
		return fmt.Errorf("key %q cannot be a file's name: %w", key, schema.ErrRefused)
	}
	return nil
}

// cleanPath returns a path below a volume in its shortest form. It refuses one
// that leaves the volume or takes a name that begins with two dots: those are ours.
func cleanPath(p string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("%q %s: %w", p, why, schema.ErrRefused) }
	switch {
	case p == "":
		return bad("is empty")
	case path.IsAbs(p):
		return bad("must be relative")
	case strings.ContainsRune(p, 0):
		return bad("has a zero byte")
	}
	names := strings.Split(p, "/")
	if slices.Contains(names, "..") {
		return bad("must not contain '..'")
	}
	clean := path.Clean(p)
	if clean == "." {
		return bad("names no file")
	}
	if strings.HasPrefix(clean, "..") {
		return bad("must not begin with '..'")
	}
	if slices.ContainsFunc(names, func(n string) bool { return len(n) > maxNameLen }) || len(p) > maxPathLen || len(names) > maxNames {
		return bad("is too long")
	}
	return clean, nil
}

// check refuses a path that is both a file and a directory of another.
func (f files) check() error {
	for name := range f {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, both := f[dir]; both {
				return fmt.Errorf("%s is a file, and %s lies in it: %w", dir, name, schema.ErrRefused)
			}
		}
	}
	return nil
}

// splitPath is the names of a clean relative path.
func splitPath(p string) []string { return strings.Split(path.Clean(p), "/") }
