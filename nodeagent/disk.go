package nodeagent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// disk keeps what the node was assigned, so that it starts it after a reboot
// without a control plane:
//
//	<data>/pods/<uid>.json    schema.Assignment, durable before the pod begins
//	<data>/status/<uid>.json  corev1.PodStatus as last reported; not synced: it is only kept
//	                          for times of transition and verdicts, and may be lost
//	<data>/objects/<kind>.<ns>_<name>.json  ConfigMap or Secret, durable
//
// All with mode 0600, below directories with 0700; Secrets are in the clear. Each is
// written beside and renamed, so that a file is whole or not there.
type disk struct{ pods, status, objects string }

func openDisk(data string) (*disk, error) {
	d := &disk{filepath.Join(data, "pods"), filepath.Join(data, "status"), filepath.Join(data, "objects")}
	for _, dir := range []string{d.pods, d.status, d.objects} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make the agent's directory: %w", err)
		}
	}
	return d, nil
}

// A kept is what lay on disk.
type kept struct {
	pods    []keptPod
	objects Assigned
}

type keptPod struct {
	schema.Assignment
	status *corev1.PodStatus // never nil
}

// load reads everything. A file that cannot be understood is set aside with a
// loud word and does not keep the others from being taken up.
func (d *disk) load(log *slog.Logger) (k kept, err error) {
	err = each(d.pods, log, func(name string, raw []byte) error {
		var a schema.Assignment
		if err := json.Unmarshal(raw, &a); err != nil {
			return err
		}
		if string(a.Pod.UID)+".json" != name {
			return fmt.Errorf("it is of the pod with uid %q", a.Pod.UID)
		}
		k.pods = append(k.pods, keptPod{a, d.loadStatus(a.Pod.UID)})
		return nil
	})
	if err != nil {
		return k, err
	}
	return k, each(d.objects, log, func(name string, raw []byte) error {
		if strings.HasPrefix(name, string(schema.Secrets)+".") {
			var s corev1.Secret
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			if err := named(name, schema.Secrets, &s); err != nil {
				return err
			}
			k.objects.Secrets = append(k.objects.Secrets, s)
			return nil
		}
		var m corev1.ConfigMap
		if err := json.Unmarshal(raw, &m); err != nil {
			return err
		}
		if err := named(name, schema.ConfigMaps, &m); err != nil {
			return err
		}
		k.objects.ConfigMaps = append(k.objects.ConfigMaps, m)
		return nil
	})
}

// named says whether the object is the one that its file is named after.
func named(file string, kind schema.Kind, o metav1.Object) error {
	k := schema.ObjectKey{Kind: kind, Namespace: o.GetNamespace(), Name: o.GetName()}
	if objectFile(k)+".json" != file {
		return fmt.Errorf("it is of %s %s/%s", kind, k.Namespace, k.Name)
	}
	return nil
}

func (d *disk) loadStatus(uid types.UID) *corev1.PodStatus {
	s := new(corev1.PodStatus)
	raw, err := os.ReadFile(filepath.Join(d.status, string(uid)+".json"))
	if err != nil || json.Unmarshal(raw, s) != nil {
		return new(corev1.PodStatus)
	}
	return s
}

// each reads every record of a directory. The remains of a write that was cut
// off are removed.
func each(dir string, log *slog.Logger, read func(name string, raw []byte) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if filepath.Ext(path) == ".new" {
			if err := os.Remove(path); err != nil {
				return err
			}
			continue
		}
		if filepath.Ext(path) != ".json" {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := read(e.Name(), raw); err != nil {
			log.Error("set aside a record that cannot be understood", "file", path, "err", err)
			if err := os.Rename(path, path+".bad"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) putPod(a schema.Assignment) error {
	return write(d.pods, string(a.Pod.UID), a, true)
}

func (d *disk) putStatus(uid types.UID, s corev1.PodStatus) error {
	return write(d.status, string(uid), s, false)
}

func (d *disk) forgetPod(uid types.UID) error {
	return errors.Join(remove(d.status, string(uid)), remove(d.pods, string(uid)))
}

func (d *disk) putObject(k schema.ObjectKey, o any) error {
	return write(d.objects, objectFile(k), o, true)
}

func (d *disk) forgetObject(k schema.ObjectKey) error { return remove(d.objects, objectFile(k)) }

// longestRecord is how long a record's name may be, so that it can be a file's
// with what is added to it, in bytes.
const longestRecord = 240

// objectFile is one-to-one: a namespace has no underscore. Of a name that is too
// long, the end gives way to a sum of it all; none has a '~'.
func objectFile(k schema.ObjectKey) string {
	name := string(k.Kind) + "." + k.Namespace + "_" + k.Name
	if len(name) <= longestRecord {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	end := "~" + hex.EncodeToString(sum[:])
	return name[:longestRecord-len(end)] + end
}

// write puts v into dir/name.json, durably when asked for.
func write(dir, name string, v any, durable bool) error {
	if err := plainName(name); err != nil {
		return err
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, name+".json")
	if err := writeFile(path+".new", raw, durable); err != nil {
		return errors.Join(err, os.Remove(path+".new"))
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	if durable {
		return syncDir(dir)
	}
	return nil
}

func writeFile(path string, raw []byte, durable bool) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func remove(dir, name string) error {
	if err := plainName(name); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, name+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// plainName refuses what would leave the directory.
func plainName(name string) error {
	if name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q cannot name a record: %w", name, schema.ErrRefused)
	}
	return nil
}
