package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// objects are the ConfigMaps and Secrets of one namespace.
type objects struct {
	configMaps map[string]*corev1.ConfigMap
	secrets    map[string]*corev1.Secret
}

func (o objects) ConfigMap(_, name string) (*corev1.ConfigMap, bool) {
	m, ok := o.configMaps[name]
	return m, ok
}

func (o objects) Secret(_, name string) (*corev1.Secret, bool) {
	s, ok := o.secrets[name]
	return s, ok
}

// A fixture is an instance with directories of its own.
type fixture struct {
	*Volumes
	t   *testing.T
	dir string
	objects
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it mounts")
	}
	f := &fixture{t: t, dir: t.TempDir(), objects: objects{map[string]*corev1.ConfigMap{}, map[string]*corev1.Secret{}}}
	f.Volumes = New(Options{DataDir: filepath.Join(f.dir, "data"), RunDir: filepath.Join(f.dir, "run")})
	t.Cleanup(func() {
		held, err := f.Held(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, uid := range held {
			if err := f.Remove(context.Background(), uid); err != nil {
				t.Error(err)
			}
		}
		if left := f.mounts(); len(left) > 0 {
			t.Errorf("mounts left: %v", left)
			if err := unmountBelow(f.dir); err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

// mounts lists what is mounted in the instance's directories.
func (f *fixture) mounts() []string {
	f.t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.t.Fatal(err)
	}
	return mountPoints(text, f.dir)
}

func (f *fixture) configMap(name string, data map[string]string) {
	f.configMaps[name] = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}

func (f *fixture) secret(name string, data map[string]string) {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{}}
	for k, text := range data {
		s.Data[k] = []byte(text)
	}
	f.secrets[name] = s
}

func (f *fixture) setup(p *corev1.Pod) {
	f.t.Helper()
	if err := f.Setup(f.t.Context(), p, f.objects); err != nil {
		f.t.Fatal(err)
	}
}

// mounted is what the pod's container sees: host paths by container path.
func (f *fixture) mounted(p *corev1.Pod) map[string]nodeagent.Mount {
	f.t.Helper()
	list, err := f.Mounts(p, &p.Spec.Containers[0])
	if err != nil {
		f.t.Fatal(err)
	}
	m := map[string]nodeagent.Mount{}
	for _, x := range list {
		m[x.ContainerPath] = x
	}
	return m
}

func (f *fixture) remove(p *corev1.Pod) {
	f.t.Helper()
	if err := f.Remove(f.t.Context(), p.UID); err != nil {
		f.t.Fatal(err)
	}
	for _, base := range []string{f.dataDir, f.runDir} {
		if _, err := os.Lstat(filepath.Join(base, string(p.UID))); !errors.Is(err, fs.ErrNotExist) {
			f.t.Errorf("%s is left: %v", p.UID, err)
		}
	}
}

// newPod has one container that mounts each volume at /<name>.
func newPod(uid string, volumes ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: types.UID(uid), Labels: map[string]string{"app": "web", "tier": "front"}}}
	p.Spec.Volumes = volumes
	c := corev1.Container{Name: "main", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("64Mi")}}}
	for _, v := range volumes {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	p.Spec.Containers = []corev1.Container{c}
	return p
}

func source(name string, s corev1.VolumeSource) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: s}
}

func fromConfigMap(name, object string, items ...corev1.KeyToPath) corev1.Volume {
	return source(name, corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: object}, Items: items}})
}

func fromSecret(name, object string) corev1.Volume {
	return source(name, corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: object}})
}

func emptyDir(name string, e corev1.EmptyDirVolumeSource) corev1.Volume {
	return source(name, corev1.VolumeSource{EmptyDir: &e})
}

// tree reads a volume as a container would: path → mode and content.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	var walk func(rel string)
	walk = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			at := filepath.Join(rel, e.Name())
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			info, err := os.Stat(filepath.Join(dir, at))
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(at)
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, at))
			if err != nil {
				t.Fatal(err)
			}
			got[at] = fmt.Sprintf("%04o %s", info.Mode().Perm(), text)
		}
	}
	walk("")
	return got
}

func wantFiles(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	if got := read(t, dir); !maps.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func fileSystem(t *testing.T, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return s.Type
}

func TestEmptyDir(t *testing.T) {
	f := newFixture(t)
	limit := resource.MustParse("1Mi")
	p := newPod("u1", emptyDir("disk", corev1.EmptyDirVolumeSource{}), emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: "Memory", SizeLimit: &limit}), corev1.Volume{Name: "nothing"})
	f.setup(p)
	m := f.mounted(p)
	disk, memory := m["/disk"].HostPath, m["/memory"].HostPath
	if fileSystem(t, disk) == unix.TMPFS_MAGIC {
		t.Error("the volume on disk is in memory")
	}
	if fileSystem(t, memory) != unix.TMPFS_MAGIC {
		t.Error("the volume in memory is on disk")
	}
	if err := os.WriteFile(filepath.Join(memory, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("2 MiB in 1 MiB of memory: %v, want ENOSPC", err)
	}
	for _, dir := range []string{disk, memory, m["/nothing"].HostPath} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o777 {
			t.Errorf("%s: mode %v, %v; every user must be able to write", dir, info.Mode(), err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.setup(p) // a restarted agent
	if _, err := os.Stat(filepath.Join(disk, "kept")); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if n := len(f.mounts()); n != 1 {
		t.Errorf("%d mounts, want 1", n)
	}
	f.remove(p)
	f.remove(p)
}

func TestConfigMap(t *testing.T) {
	f := newFixture(t)
	f.configMap("settings", map[string]string{"a": "1", "b.properties": "x=1\n"})
	f.configMaps["settings"].BinaryData = map[string][]byte{"bin": {0, 1, 255}}
	p := newPod("u1", fromConfigMap("all", "settings"), fromConfigMap("some", "settings",
		corev1.KeyToPath{Key: "a", Path: "deep/er/a", Mode: ptr.To(int32(0o600))}, corev1.KeyToPath{Key: "b.properties", Path: "b"}))
	f.setup(p)
	m := f.mounted(p)
	wantFiles(t, m["/all"].HostPath, map[string]string{"a": "0644 1", "b.properties": "0644 x=1\n", "bin": "0644 \x00\x01\xff"})
	wantFiles(t, m["/some"].HostPath, map[string]string{"deep/er/a": "0600 1", "b": "0644 x=1\n"})
	if !m["/all"].ReadOnly {
		t.Error("a container could write to the files of a ConfigMap")
	}

	before, err := os.Readlink(filepath.Join(m["/all"].HostPath, dataLink))
	if err != nil {
		t.Fatal(err)
	}
	f.setup(p)
	if after, err := os.Readlink(filepath.Join(m["/all"].HostPath, dataLink)); after != before {
		t.Errorf("the files were written again without need (%v)", err)
	}

	f.configMap("settings", map[string]string{"a": "2", "c": "3"})
	p.Spec.Volumes[1].ConfigMap.Items = p.Spec.Volumes[1].ConfigMap.Items[:1]
	f.setup(p)
	wantFiles(t, m["/all"].HostPath, map[string]string{"a": "0644 2", "c": "0644 3"})
	wantFiles(t, m["/some"].HostPath, map[string]string{"deep/er/a": "0600 2"})
	entries, err := os.ReadDir(m["/all"].HostPath)
	if err != nil || len(entries) != 4 { // a, c, ..data, ..<time>
		t.Errorf("left in the volume: %v, %v", entries, err)
	}
	f.remove(p)
}

func TestSecretStaysInMemory(t *testing.T) {
	f := newFixture(t)
	f.secret("password", map[string]string{"user": "ada", "password": "hush-hush"})
	f.configMap("settings", map[string]string{"a": "1"})
	p := newPod("u1", fromSecret("secret", "password"), source("both", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "password"}, Items: []corev1.KeyToPath{{Key: "password", Path: "secret/p"}}}},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
	}}}))
	p.Spec.Volumes[0].Secret.DefaultMode = ptr.To(int32(0o400))
	f.setup(p)
	m := f.mounted(p)
	wantFiles(t, m["/secret"].HostPath, map[string]string{"user": "0400 ada", "password": "0400 hush-hush"})
	wantFiles(t, m["/both"].HostPath, map[string]string{"secret/p": "0644 hush-hush", "a": "0644 1", "name": "0644 web"})
	for _, at := range []string{"/secret", "/both"} {
		if fileSystem(t, m[at].HostPath) != unix.TMPFS_MAGIC || !m[at].ReadOnly {
			t.Errorf("%s is not read-only memory", at)
		}
	}
	// The machine restarted: memory is empty, the directories are there.
	if err := unmountBelow(f.dir); err != nil {
		t.Fatal(err)
	}
	f.setup(p)
	wantFiles(t, m["/secret"].HostPath, map[string]string{"user": "0400 ada", "password": "0400 hush-hush"})
	if err := unmountBelow(f.dir); err != nil {
		t.Fatal(err)
	}
	filepath.WalkDir(f.dir, func(at string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			t.Errorf("%s is on the disk", at)
		}
		return err
	})
	f.remove(p)
}

func TestDownwardAPI(t *testing.T) {
	f := newFixture(t)
	field := func(at, field string) corev1.DownwardAPIVolumeFile {
		return corev1.DownwardAPIVolumeFile{Path: at, FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}
	}
	p := newPod("u1", source("info", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
		field("name", "metadata.name"), field("uid", "metadata.uid"), field("labels", "metadata.labels"), field("app", "metadata.labels['app']"),
		{Path: "memory", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "main", Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}},
	}}}))
	f.setup(p)
	dir := f.mounted(p)["/info"].HostPath
	wantFiles(t, dir, map[string]string{"name": "0644 web", "uid": "0644 u1", "labels": "0644 app=\"web\"\ntier=\"front\"", "app": "0644 web", "memory": "0644 64"})
	p.Labels["app"] = "other"
	f.setup(p)
	if got := read(t, dir)["app"]; got != "0644 other" {
		t.Errorf("the label changed, the file says %q", got)
	}
}

func TestFSGroup(t *testing.T) {
	f := newFixture(t)
	f.secret("password", map[string]string{"p": "x"})
	p := newPod("u1", emptyDir("data", corev1.EmptyDirVolumeSource{}), fromSecret("secret", "password"))
	p.Spec.Volumes[1].Secret.DefaultMode = ptr.To(int32(0o400))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To(int64(2000))}
	p.Spec.Containers[0].VolumeMounts[0].SubPath = "sub"
	f.setup(p)
	m := f.mounted(p)
	for at, want := range map[string]string{
		filepath.Join(f.dataDir, "u1", "data"): "2777 2000", m["/data"].HostPath: "2777 2000", filepath.Join(m["/secret"].HostPath, "p"): "0440 2000",
	} {
		var s unix.Stat_t
		if err := unix.Stat(at, &s); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%04o %d", s.Mode&0o7777, s.Gid); got != want {
			t.Errorf("%s: mode and group %s, want %s", at, got, want)
		}
	}
}

// TestEmptyDirStaysItsUsers: a database that has made its directory its own must
// find it so after the pod's other volumes were brought up to date, or the agent
// was restarted.
func TestEmptyDirStaysItsUsers(t *testing.T) {
	f := newFixture(t)
	p := newPod("u1", emptyDir("disk", corev1.EmptyDirVolumeSource{}), emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: "Memory"}))
	p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr.To(int64(2000))}
	if err := os.MkdirAll(filepath.Join(f.dataDir, "u1", "..new-disk"), 0o700); err != nil { // an agent was killed here
		t.Fatal(err)
	}
	f.setup(p)
	for at, m := range f.mounted(p) {
		if got := ownership(t, m.HostPath); got != "2777 0:2000" {
			t.Errorf("%s at first: %s", at, got)
		}
		if err := errors.Join(os.Chown(m.HostPath, 70, 71), os.Chmod(m.HostPath, 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	f.setup(p)
	for at, m := range f.mounted(p) {
		if got := ownership(t, m.HostPath); got != "0700 70:71" {
			t.Errorf("%s after another look: %s; want what its user made of it, 0700 70:71", at, got)
		}
	}
	f.remove(p)
}

func ownership(t *testing.T, at string) string {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(at, &s); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%04o %d:%d", s.Mode&0o7777, s.Uid, s.Gid)
}

// TestMissing tells what is waited for, and what can never be.
func TestMissing(t *testing.T) {
	f := newFixture(t)
	f.configMap("settings", map[string]string{"a": "1", "../up": "x"})
	f.configMap("deep", map[string]string{"a/b": "x"})
	f.configMap("good", map[string]string{"a": "1"})
	optional := fromConfigMap("v", "none")
	optional.ConfigMap.Optional = ptr.To(true)
	item := func(path string) corev1.Volume {
		return fromConfigMap("v", "good", corev1.KeyToPath{Key: "a", Path: path})
	}
	for name, c := range map[string]struct {
		volume corev1.Volume
		want   error
		names  string
	}{
		"no configmap":     {fromConfigMap("v", "none"), schema.ErrNotFound, `configmap "none" not found`},
		"no secret":        {fromSecret("v", "none"), schema.ErrNotFound, `secret "none" not found`},
		"no key":           {fromConfigMap("v", "good", corev1.KeyToPath{Key: "z", Path: "z"}), schema.ErrNotFound, `"z"`},
		"optional":         {optional, nil, ""},
		"key leads out":    {fromConfigMap("v", "settings"), schema.ErrRefused, "../up"},
		"key with a slash": {fromConfigMap("v", "deep"), schema.ErrRefused, "a/b"},
		"path leads out":   {item("../../etc/passwd"), schema.ErrRefused, "'..'"},
		"path inside out":  {item("a/../../b"), schema.ErrRefused, "'..'"},
		"absolute path":    {item("/etc/passwd"), schema.ErrRefused, "relative"},
		"our name":         {item("..data"), schema.ErrRefused, "'..'"},
		"zero byte":        {item("a\x00b"), schema.ErrRefused, "zero"},
		"no path":          {item("."), schema.ErrRefused, "no file"},
		"file is directory": {fromConfigMap("v", "good", corev1.KeyToPath{Key: "a", Path: "x"}, corev1.KeyToPath{Key: "a", Path: "x/y"}),
			schema.ErrRefused, "lies in it"},
		"hostPath":    {source("v", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a/../etc"}}), schema.ErrRefused, "'..'"},
		"claim":       {source("v", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "db"}}), schema.ErrUnavailable, "waiting for claim db"},
		"nfs":         {source("v", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "-o", Path: "/x"}}), schema.ErrRefused, "want a server"},
		"iscsi":       {source("v", corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}), schema.ErrRefused, "not supported"},
		"volume name": {emptyDir("../v", corev1.EmptyDirVolumeSource{}), schema.ErrRefused, "DNS label"},
		"medium":      {emptyDir("v", corev1.EmptyDirVolumeSource{Medium: "HugePages"}), schema.ErrRefused, "HugePages"},
	} {
		t.Run(name, func(t *testing.T) {
			err := f.Setup(t.Context(), newPod("u1", c.volume), f.objects)
			if c.want == nil && err != nil || !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.names) {
				t.Errorf("%v, want %v that says %s", err, c.want, c.names)
			}
		})
	}
	for _, uid := range []types.UID{"", "..", "a/b", "../x"} {
		if err := f.Setup(t.Context(), newPod(string(uid)), f.objects); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("uid %q: %v", uid, err)
		}
		if err := f.Remove(t.Context(), uid); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("uid %q: %v", uid, err)
		}
	}
}

// TestObjectGoesUnderPod: an object is removed from Git while a pod that mounts
// it still runs, as when a ConfigMap gets a new name with each change. The pod
// keeps its files, also over a restart of the agent, and can restart its containers.
func TestObjectGoesUnderPod(t *testing.T) {
	f := newFixture(t)
	f.configMap("settings", map[string]string{"a": "1"})
	f.configMap("other", map[string]string{"b": "1"})
	f.secret("password", map[string]string{"p": "x"})
	p := newPod("u1", fromConfigMap("c", "settings"), fromSecret("s", "password"), fromConfigMap("o", "other"))
	f.setup(p)
	delete(f.configMaps, "settings")
	delete(f.secrets, "password")
	f.configMap("other", map[string]string{"b": "2"})
	for range 2 {
		err := f.Setup(t.Context(), p, f.objects)
		if !errors.Is(err, nodeagent.ErrOutdated) || !strings.Contains(err.Error(), `configmap "settings" not found`) || !strings.Contains(err.Error(), `secret "password" not found`) {
			t.Errorf("%v, want one that says which objects are gone, and that the files stay", err)
		}
		m := f.mounted(p)
		wantFiles(t, m["/c"].HostPath, map[string]string{"a": "0644 1"})
		wantFiles(t, m["/s"].HostPath, map[string]string{"p": "0644 x"})
		wantFiles(t, m["/o"].HostPath, map[string]string{"b": "0644 2"})
	}
	if err := f.Setup(t.Context(), newPod("u2", fromConfigMap("c", "settings")), f.objects); !errors.Is(err, schema.ErrNotFound) || errors.Is(err, nodeagent.ErrOutdated) {
		t.Errorf("a pod that never had it: %v", err)
	}
}

// TestNoRoomForAnUpdate: an update that does not fit leaves the volume as it was,
// and nothing that keeps the next one from fitting.
func TestNoRoomForAnUpdate(t *testing.T) {
	f := newFixture(t)
	if err := errors.Join(os.MkdirAll(f.dataDir, 0o700), unix.Mount("tmpfs", f.dataDir, "tmpfs", 0, "size=1m")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(f.dataDir); err != nil {
			t.Error(err)
		}
	})
	p := newPod("u1", fromConfigMap("v", "settings"))
	set := func(size int) string {
		text := strings.Repeat("x", size)
		f.configMap("settings", map[string]string{"a": text})
		return "0644 " + text
	}
	first := set(300 << 10)
	f.setup(p)
	dir := f.mounted(p)["/v"].HostPath
	set(900 << 10)
	for range 3 {
		if err := f.Setup(t.Context(), p, f.objects); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("900 KiB into what is left of 1 MiB: %v", err)
		}
		wantFiles(t, dir, map[string]string{"a": first})
	}
	third := set(500 << 10)
	f.setup(p)
	wantFiles(t, dir, map[string]string{"a": third})
	f.remove(p)
}

// TestReadersSeeNoHalf reads two files that must always agree while they change.
func TestReadersSeeNoHalf(t *testing.T) {
	f := newFixture(t)
	set := func(n int) {
		f.configMap("settings", map[string]string{"a": fmt.Sprint(n), "b": fmt.Sprint(n)})
	}
	set(0)
	p := newPod("u1", fromConfigMap("v", "settings"))
	f.setup(p)
	dir := f.mounted(p)["/v"].HostPath
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := os.Lstat(filepath.Join(dir, dataLink)); err != nil {
				t.Errorf("there is a moment without files: %v", err)
				return
			}
			now, err := os.Open(filepath.Join(dir, dataLink))
			if err != nil {
				continue // the link was turned between reading and following it
			}
			a, errA := readAt(now, "a")
			b, errB := readAt(now, "b")
			now.Close()
			if errA == nil && errB == nil && a != b {
				t.Errorf("half an update: a=%s b=%s", a, b)
				return
			}
			if _, err := os.Lstat(filepath.Join(dir, "a")); err != nil {
				t.Errorf("there is a moment without a name: %v", err)
				return
			}
		}
	})
	for n := range 300 {
		set(n + 1)
		f.setup(p)
	}
	close(done)
	wg.Wait()
}

func readAt(dir *os.File, name string) (string, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err // this moment's directory is over
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	var text [16]byte
	n, err := file.Read(text[:])
	return string(text[:n]), err
}

// TestCutOff begins where a kill in the middle of an update, or a power cut,
// left off.
func TestCutOff(t *testing.T) {
	for name, damage := range map[string]func(dir, current string) error{
		"half a directory": func(dir, _ string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "..2030"), 0o755), os.WriteFile(filepath.Join(dir, "..2030", "a"), nil, 0o644))
		},
		"link not turned":  func(dir, _ string) error { return os.Symlink("..2030", filepath.Join(dir, newDataLink)) },
		"names not linked": func(dir, _ string) error { return os.Remove(filepath.Join(dir, "a")) },
		"names not cleared": func(dir, _ string) error {
			return os.Symlink("..data/gone", filepath.Join(dir, "gone"))
		},
		"file empty":   func(dir, current string) error { return os.Truncate(filepath.Join(dir, current, "a"), 0) },
		"file gone":    func(dir, current string) error { return os.Remove(filepath.Join(dir, current, "b")) },
		"file more":    func(dir, current string) error { return os.WriteFile(filepath.Join(dir, current, "z"), nil, 0o644) },
		"mode changed": func(dir, current string) error { return os.Chmod(filepath.Join(dir, current, "a"), 0o600) },
		"link leads out": func(dir, _ string) error {
			return errors.Join(os.Remove(filepath.Join(dir, dataLink)), os.Symlink("/etc", filepath.Join(dir, dataLink)))
		},
		"link dangles": func(dir, current string) error { return os.RemoveAll(filepath.Join(dir, current)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.configMap("settings", map[string]string{"a": "1", "b": "2"})
			p := newPod("u1", fromConfigMap("v", "settings"))
			f.setup(p)
			dir := f.mounted(p)["/v"].HostPath
			current, err := os.Readlink(filepath.Join(dir, dataLink))
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(dir, current); err != nil {
				t.Fatal(err)
			}
			f.setup(p)
			wantFiles(t, dir, map[string]string{"a": "0644 1", "b": "0644 2"})
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 4 {
				t.Errorf("left in the volume: %v, %v", entries, err)
			}
		})
	}
}

func TestSubPath(t *testing.T) {
	f := newFixture(t)
	f.configMap("settings", map[string]string{"app.properties": "x=1", "other": "y"})
	p := newPod("u1", fromConfigMap("settings", "settings"), emptyDir("data", corev1.EmptyDirVolumeSource{}), emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: "Memory"}))
	mounts := p.Spec.Containers[0].VolumeMounts
	mounts[0].SubPath, mounts[0].MountPath = "app.properties", "/etc/app.properties"
	mounts[1].SubPath, mounts[2].SubPath = "a/b", "c"
	f.setup(p)
	m := f.mounted(p)
	text, err := os.ReadFile(m["/etc/app.properties"].HostPath)
	if err != nil || string(text) != "x=1" || !m["/etc/app.properties"].ReadOnly {
		t.Errorf("the file is %q, %v", text, err)
	}
	for at, below := range map[string]string{"/data": filepath.Join(f.dataDir, "u1/data/a/b"), "/memory": filepath.Join(f.runDir, "u1/memory/c")} {
		if err := os.WriteFile(filepath.Join(m[at].HostPath, "new"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(below, "new")); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	// A restarted container sees the file of now; nothing piles up.
	f.configMap("settings", map[string]string{"app.properties": "x=2"})
	f.setup(p)
	for range 3 {
		m = f.mounted(p)
	}
	if text, err := os.ReadFile(m["/etc/app.properties"].HostPath); string(text) != "x=2" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if n := len(f.mounts()); n != 4 {
		t.Errorf("%d mounts, want one for memory and three for subPaths: %v", n, f.mounts())
	}
	f.remove(p)
}

// TestSubPathLeadsNowhereElse has a container that prepared its volume.
func TestSubPathLeadsNowhereElse(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	p := newPod("u1", emptyDir("data", corev1.EmptyDirVolumeSource{}), fromConfigMap("settings", "settings"))
	p.Spec.Containers[0].VolumeMounts = p.Spec.Containers[0].VolumeMounts[:1]
	f.configMap("settings", nil)
	f.setup(p)
	dir := filepath.Join(f.dataDir, "u1/data")
	for name, target := range map[string]string{
		"absolute": outside, "relative": "../../../../../../../../" + outside, "proc": "/proc/self/root", "up": "..", "inside": "real", "dangling": outside + "/new", "loop": "loop",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "real"), 0o755), unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666), os.WriteFile(filepath.Join(dir, "file"), nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	for sub, fine := range map[string]bool{
		"absolute": false, "absolute/x": false, "relative": false, "relative/x": false, "proc/etc": false, "up": false, "up/up": false, "dangling": false, "loop": false,
		"fifo": false, "file/x": false, "../data": false, "/etc": false, "a/../../b": false, "inside": true, "inside/x": true, "real/./y": true, "file": true, ".": true, "a..b": true,
	} {
		p.Spec.Containers[0].VolumeMounts[0].SubPath = sub
		_, err := f.Mounts(p, &p.Spec.Containers[0])
		if (err == nil) != fine {
			t.Errorf("subPath %s: %v, want success %v", sub, err, fine)
		}
	}
	if entries, err := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
	p.Spec.Containers[0].VolumeMounts[0] = corev1.VolumeMount{Name: "settings", MountPath: "/x", SubPath: "none"}
	if _, err := f.Mounts(p, &p.Spec.Containers[0]); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("a key that is not there: %v, want ErrNotFound", err)
	}
}

// TestSubPathRace swaps a directory for a link to the outside all the time.
func TestSubPathRace(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "treasure"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPod("u1", emptyDir("data", corev1.EmptyDirVolumeSource{}))
	p.Spec.Containers[0].VolumeMounts[0].SubPath = "dir/sub"
	f.setup(p)
	dir := filepath.Join(f.dataDir, "u1/data")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "dir/sub"), 0o755), os.Symlink(filepath.Dir(outside), filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "dir"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
			}
		}
	})
	for range 500 {
		m, err := f.Mounts(p, &p.Spec.Containers[0])
		if err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(m[0].HostPath, "treasure")); err == nil {
			t.Error("a container got out of its volume")
			break
		}
	}
	close(done)
	wg.Wait()
}

// TestRemoveStaysInside deletes volumes that lead elsewhere by links and mounts.
func TestRemoveStaysInside(t *testing.T) {
	f := newFixture(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPod("u1", emptyDir("data", corev1.EmptyDirVolumeSource{}), emptyDir("memory", corev1.EmptyDirVolumeSource{Medium: "Memory"}))
	f.setup(p)
	dir := filepath.Join(f.dataDir, "u1/data")
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(dir, "link")),
		os.Mkdir(filepath.Join(dir, "mount point"), 0o755),
		unix.Mount(outside, filepath.Join(dir, "mount point"), "", unix.MS_BIND, ""),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
		unix.Mount(precious, filepath.Join(dir, "file"), "", unix.MS_BIND, ""),
		unix.Mount("tmpfs", filepath.Join(f.runDir, "u1/memory"), "tmpfs", 0, ""),
	); err != nil {
		t.Fatal(err)
	}
	if held, err := f.Held(t.Context()); err != nil || !slices.Equal(held, []types.UID{"u1"}) {
		t.Errorf("held %v, %v", held, err)
	}
	f.remove(p)
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what lies outside is gone: %v", err)
	}
	if left := f.mounts(); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	if held, err := f.Held(t.Context()); err != nil || len(held) != 0 {
		t.Errorf("held %v, %v", held, err)
	}
}

// TestRemoveDeep deletes directories nested deeper than files can be open, and
// names too long for one path.
func TestRemoveDeep(t *testing.T) {
	f := newFixture(t)
	p := newPod("u1", emptyDir("data", corev1.EmptyDirVolumeSource{}))
	f.setup(p)
	fd, err := unix.Open(filepath.Join(f.dataDir, "u1/data"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("d", 200)
	for range 3000 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	f.remove(p)
}

func TestNothingIsLeftOfManyPods(t *testing.T) {
	f := newFixture(t)
	f.configMap("settings", map[string]string{"a": "1"})
	f.secret("password", map[string]string{"p": "x"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for round := range 25 {
				p := newPod(fmt.Sprintf("u-%d-%d", i, round), fromConfigMap("c", "settings"), fromSecret("s", "password"), emptyDir("e", corev1.EmptyDirVolumeSource{}))
				p.Spec.Containers[0].VolumeMounts[0].SubPath = "a"
				err := f.Setup(t.Context(), p, f.objects)
				if err == nil {
					_, err = f.Mounts(p, &p.Spec.Containers[0])
				}
				if err := errors.Join(err, f.Remove(t.Context(), p.UID)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if left := f.mounts(); len(left) > 0 {
		t.Errorf("mounts left: %v", left)
	}
	if held, err := f.Held(t.Context()); err != nil || len(held) != 0 {
		t.Errorf("held %v, %v", held, err)
	}
}

func TestUnknownPodsAndVolumes(t *testing.T) {
	f := newFixture(t)
	if err := f.Remove(t.Context(), "never-seen"); err != nil {
		t.Error(err)
	}
	p := newPod("u1")
	f.setup(p)
	if held, err := f.Held(t.Context()); err != nil || len(held) != 0 {
		t.Errorf("a pod without volumes holds %v, %v", held, err)
	}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "none", MountPath: "/x"}}
	if _, err := f.Mounts(p, &p.Spec.Containers[0]); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v, want ErrRefused", err)
	}
}

// FuzzPaths holds that no path of a manifest leaves the volume.
func FuzzPaths(f *testing.F) {
	for _, seed := range []string{"a", "a/b", "../x", "a/../../x", "/abs", "..data", "a//b", "./a", "a/.", "...", "..a/b", "a\x00", strings.Repeat("x/", 600)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if at, err := cleanPath(p); err == nil {
			if !filepath.IsLocal(at) || strings.HasPrefix(at, "..") || at == "." || strings.Contains(at, "\x00") {
				t.Errorf("%q became %q", p, at)
			}
			if again, err := cleanPath(at); err != nil || again != at {
				t.Errorf("%q became %q, and that %q (%v)", p, at, again, err)
			}
			dir := t.TempDir()
			if err := writeFiles(dir, files{at: {data: []byte("x"), mode: 0o644}}, nil); err != nil {
				t.Errorf("write %q: %v", at, err)
			} else if text, err := os.ReadFile(filepath.Join(dir, at)); err != nil || string(text) != "x" {
				t.Errorf("read %q: %q, %v", at, text, err)
			}
		}
		if at, err := cleanSubPath(p); err == nil && (!filepath.IsLocal(at) || strings.HasPrefix(at, "../")) {
			t.Errorf("subPath %q became %q", p, at)
		}
	})
}

func BenchmarkSetupAndRemove(b *testing.B) {
	dir := b.TempDir()
	v := New(Options{DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run")})
	o := objects{map[string]*corev1.ConfigMap{"c": {Data: map[string]string{"a": "1", "b": "2"}}}, map[string]*corev1.Secret{"s": {Data: map[string][]byte{"p": []byte("x")}}}}
	for name, volumes := range map[string][]corev1.Volume{
		"none":      nil,
		"emptyDir":  {emptyDir("e", corev1.EmptyDirVolumeSource{})},
		"configMap": {fromConfigMap("c", "c")},
		"secret":    {fromSecret("s", "s")},
	} {
		b.Run(name, func(b *testing.B) {
			p := newPod("u1", volumes...)
			for range b.N {
				if err := errors.Join(v.Setup(b.Context(), p, o), v.Remove(b.Context(), p.UID)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
