package volume

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

func hostPath(path string, t corev1.HostPathType) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &t}}}
}

// TestHostPathTypes asks every type of every kind of file.
func TestHostPathTypes(t *testing.T) {
	f := newFixture(t)
	there := map[string]string{}
	for _, name := range []string{"dir", "file", "socket"} {
		there[name] = filepath.Join(f.dir, name)
	}
	there["char"], there["none"] = "/dev/null", filepath.Join(f.dir, "none")
	if err := errors.Join(os.Mkdir(there["dir"], 0o755), os.WriteFile(there["file"], nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", there["socket"])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	fits := map[corev1.HostPathType]string{
		corev1.HostPathUnset: "dir file socket char", corev1.HostPathDirectory: "dir", corev1.HostPathFile: "file",
		corev1.HostPathSocket: "socket", corev1.HostPathCharDev: "char", corev1.HostPathBlockDev: "",
	}
	for kind, ok := range fits {
		for name, path := range there {
			err := f.Setup(t.Context(), newPod("u1", hostPath(path, kind)), f.objects)
			want := error(nil)
			switch {
			case name == "none" && kind == corev1.HostPathUnset:
				if err := os.Remove(path); err != nil {
					t.Errorf("without a type what is missing is not made: %v", err)
				}
			case strings.Contains(ok, name):
			case name == "none":
				want = schema.ErrNotFound
			default:
				want = schema.ErrRefused
			}
			if want == nil && err != nil || !errors.Is(err, want) {
				t.Errorf("type %q at a %s: %v, want %v", kind, name, err, want)
			}
		}
	}
	if _, err := os.Stat(there["none"]); !errors.Is(err, os.ErrNotExist) {
		t.Error("a check made what it looked for")
	}
	for kind, mode := range map[corev1.HostPathType]os.FileMode{corev1.HostPathDirectoryOrCreate: os.ModeDir | 0o755, corev1.HostPathFileOrCreate: 0o644} {
		path := filepath.Join(f.dir, "new"+string(kind))
		f.setup(newPod("u1", hostPath(path, kind)))
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", kind, info, err)
		}
		if err := f.Setup(t.Context(), newPod("u1", hostPath(there["char"], kind)), f.objects); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s at a device: %v", kind, err)
		}
	}
}

// TestHostPathStays mounts a directory of the node, and a part of it, and
// removes the pod: what is in it stays.
func TestHostPathStays(t *testing.T) {
	f := newFixture(t)
	dir := filepath.Join(f.dir, "node")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "a"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := newPod("u1", hostPath(dir, corev1.HostPathDirectory))
	both := corev1.MountPropagationBidirectional
	p.Spec.Containers = []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{
		{Name: "v", MountPath: "/all", MountPropagation: &both}, {Name: "v", MountPath: "/sub", SubPath: "sub"}, {Name: "v", MountPath: "/new", SubPath: "made"}}}}
	f.setup(p)
	m := f.mounted(p)
	if m["/all"].HostPath != dir || m["/all"].Propagation != both {
		t.Errorf("mounted %+v", m["/all"])
	}
	if text, err := os.ReadFile(filepath.Join(m["/sub"].HostPath, "a")); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "made")); err != nil || !info.IsDir() {
		t.Errorf("a subPath that is not there is made: %v", err)
	}
	if err := f.Remove(context.Background(), "u1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sub", "a")); err != nil {
		t.Errorf("the node's own files were touched: %v", err)
	}
}

// TestNFS mounts by a helper that stands in for mount(8): this kernel has no NFS.
// It is called once, with what mount.nfs wants, and what it says is kept.
func TestNFS(t *testing.T) {
	f := newFixture(t)
	f.mounter = filepath.Join(f.dir, "mount")
	said := filepath.Join(f.dir, "said")
	helper := "#!/bin/sh\necho \"$@\" >> " + said + "\n[ \"$5\" != down:/x ] || { echo mount.nfs: Connection refused >&2; exit 32; }\nexec mount -t tmpfs none \"$6\"\n"
	if err := os.WriteFile(f.mounter, []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	nfs := func(server string, ro bool) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: server, Path: "/x", ReadOnly: ro}}}
	}
	p := newPod("u1", nfs("fd00::1", true))
	p.Spec.Containers = []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/n"}}}}
	f.setup(p)
	f.setup(p)
	m := f.mounted(p)["/n"]
	text, err := os.ReadFile(said)
	if want := "-t nfs -o ro [fd00::1]:/x " + m.HostPath + "\n"; err != nil || string(text) != want {
		t.Errorf("%v: the helper was called with\n%swant\n%s", err, text, want)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(m.HostPath, &s); err != nil || s.Type != unix.TMPFS_MAGIC || !m.ReadOnly {
		t.Errorf("not mounted: %+v, %v", m, err)
	}
	err = f.Setup(t.Context(), newPod("u2", nfs("down", false)), f.objects)
	if !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "mount.nfs: Connection refused") {
		t.Errorf("%v", err)
	}
}
