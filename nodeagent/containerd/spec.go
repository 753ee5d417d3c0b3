package containerd

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// groupAnnotation makes the shims of runc v2 serve all containers of one group
// by one process.
const groupAnnotation = "io.containerd.runc.v2.group"

func (r *Runtime) shimGroup(uid types.UID) string { return r.opts.Instance + "-" + string(uid) }

// defaultPath is the PATH of a process whose image and manifest name none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec writes down for runc what the container is. It is made from the image's
// configuration and the pod; labels of the image are not in it.
func (r *Runtime) spec(ctx context.Context, q nodeagent.StartRequest, image *imageInfo, sandbox *sandboxRecord, id string) (*specs.Spec, error) {
	p, c := q.Pod, q.Container
	user, err := userOf(ctx, image, p, c)
	if err != nil {
		return nil, err
	}
	if err := checkNonRoot(p, c, user.UID); err != nil {
		return nil, err
	}
	args := arguments(c, image)
	if len(args) == 0 {
		return nil, fmt.Errorf("neither the image nor the manifest says what to run: %w", schema.ErrRefused)
	}
	security := securityOf(p, c)
	caps, err := r.limits.capabilities(security)
	if err != nil {
		return nil, err
	}
	score := r.limits.oomScore(p, c)
	s := &specs.Spec{
		Version: "1.0.2", // which every runc of today reads
		Root:    &specs.Root{Path: "rootfs", Readonly: security.readOnlyRoot},
		Process: &specs.Process{
			Terminal:        c.TTY,
			User:            user,
			Args:            args,
			Env:             environment(q, image),
			Cwd:             workingDir(c, image),
			NoNewPrivileges: security.noNewPrivileges,
			OOMScoreAdj:     &score,
			Capabilities:    caps,
		},
		Linux: &specs.Linux{
			CgroupsPath: r.containerCgroup(p.UID, id),
			Resources:   r.limits.linuxResources(c),
			Namespaces:  r.namespaces(p, sandbox),
			Sysctl:      sysctls(p),
		},
		Annotations: map[string]string{groupAnnotation: r.shimGroup(p.UID)},
	}
	if err := sandbox.mapUsers(s); err != nil {
		return nil, err
	}
	if s.Mounts, err = r.mounts(q, image, sandbox, security, id, user); err != nil {
		return nil, err
	}
	if s.Linux.RootfsPropagation, err = rootPropagation(q.Mounts); err != nil {
		return nil, err
	}
	files, err := image.files.get(ctx)
	if err != nil {
		return nil, err
	}
	return s, security.apply(s, r.limits, files.bits32 || image.arch != runtime.GOARCH)
}

// arguments follow Kubernetes: a command replaces the image's entry point and
// its arguments, args alone only the arguments.
func arguments(c *corev1.Container, image *imageInfo) []string {
	if len(c.Command) > 0 {
		return slices.Concat(c.Command, c.Args)
	}
	if len(c.Args) > 0 {
		return slices.Concat(image.config.Entrypoint, c.Args)
	}
	return slices.Concat(image.config.Entrypoint, image.config.Cmd)
}

// environment is the image's and then the manifest's; of one name the last counts.
func environment(q nodeagent.StartRequest, image *imageInfo) []string {
	all := []string{defaultPath, "HOSTNAME=" + seenName(q.Pod)}
	if q.Container.TTY {
		all = append(all, "TERM=xterm")
	}
	all = append(append(all, image.config.Env...), q.Env...)
	at := make(map[string]int, len(all))
	out := all[:0]
	for _, kv := range all {
		name, _, _ := strings.Cut(kv, "=")
		if i, ok := at[name]; ok {
			out[i] = kv
			continue
		}
		at[name] = len(out)
		out = append(out, kv)
	}
	return out
}

func workingDir(c *corev1.Container, image *imageInfo) string {
	dir := image.config.WorkingDir
	if c.WorkingDir != "" {
		dir = c.WorkingDir
	}
	return path.Join("/", dir)
}

// namespaces are the pod's pinned ones, the host's (by not naming them), and a
// mount namespace of the container's own; so is its PID namespace, unless the
// pod's containers share one.
func (r *Runtime) namespaces(p *corev1.Pod, sandbox *sandboxRecord) []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	switch {
	case p.Spec.HostPID:
	case sandbox.SharePID:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: filepath.Join(r.podDir(sandbox.UID), nsPID.name)})
	default:
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	for _, k := range sandbox.kinds() {
		list = append(list, specs.LinuxNamespace{Type: ociKind[k.name], Path: filepath.Join(r.podDir(sandbox.UID), k.name)})
	}
	if r.limits.v2() {
		list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return list
}

var ociKind = map[string]specs.LinuxNamespaceType{
	nsUser.name: specs.UserNamespace, nsNet.name: specs.NetworkNamespace, nsIPC.name: specs.IPCNamespace, nsUTS.name: specs.UTSNamespace,
}

func sysctls(p *corev1.Pod) map[string]string {
	if p.Spec.SecurityContext == nil || len(p.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, s := range p.Spec.SecurityContext.Sysctls {
		m[s.Name] = s.Value
	}
	return m
}

// mounts are the kernel's file systems, the pod's files, its volumes.
func (r *Runtime) mounts(q nodeagent.StartRequest, image *imageInfo, sandbox *sandboxRecord, security security, id string, user specs.User) ([]specs.Mount, error) {
	ro := "ro"
	if security.privileged {
		ro = "rw"
	}
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", ro}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", ro}},
	}
	var binds []specs.Mount
	dir := r.podDir(sandbox.UID)
	own := []nodeagent.Mount{
		{HostPath: filepath.Join(dir, "shm"), ContainerPath: "/dev/shm"},
		{HostPath: filepath.Join(dir, "hosts"), ContainerPath: "/etc/hosts"},
		{HostPath: filepath.Join(dir, "hostname"), ContainerPath: "/etc/hostname"},
		{HostPath: filepath.Join(dir, "resolv.conf"), ContainerPath: "/etc/resolv.conf"},
	}
	if sandbox.HostIPC {
		own[0].HostPath = "/dev/shm"
	}
	for i := range own[1:] {
		own[1+i].ReadOnly = security.readOnlyRoot
	}
	taken := map[string]bool{}
	mapped, err := r.mapVolumes(sandbox, id, q.Mounts)
	if err != nil {
		return nil, err
	}
	for _, m := range mapped {
		taken[path.Clean(m.ContainerPath)] = true
		binds = append(binds, bind(m))
	}
	user.UID, user.GID = onHost(user.UID, sandbox.mappings()), onHost(user.GID, sandbox.mappings())
	volumes, err := r.imageVolumes(q, image, security, id, user, taken)
	if err != nil {
		return nil, err
	}
	message, err := messageMount(q.Container, r.logPath(schema.PodKey{Namespace: q.Pod.Namespace, Name: q.Pod.Name}, q.Pod.UID, q.Container.Name, q.Attempt))
	if err != nil {
		return nil, err
	}
	for _, m := range slices.Concat(own, volumes, message) {
		if !taken[m.ContainerPath] {
			binds = append(binds, bind(m))
		}
	}
	// What is mounted in a volume comes after the volume.
	slices.SortStableFunc(binds, func(a, b specs.Mount) int {
		return strings.Count(path.Clean(a.Destination), "/") - strings.Count(path.Clean(b.Destination), "/")
	})
	if sandbox.Users != 0 {
		keepLocked(binds)
	}
	return append(list, binds...), nil
}

func bind(m nodeagent.Mount) specs.Mount {
	mode := "rw"
	if m.ReadOnly {
		mode = "ro"
	}
	return specs.Mount{Destination: m.ContainerPath, Type: "bind", Source: m.HostPath, Options: []string{"rbind", propagation(m), mode}}
}

func propagation(m nodeagent.Mount) string {
	switch m.Propagation {
	case corev1.MountPropagationHostToContainer:
		return "rslave"
	case corev1.MountPropagationBidirectional:
		return "rshared"
	default:
		return "rprivate"
	}
}

// imageVolumes gives the places that an image declares as volumes a directory of
// ours where they could not be written otherwise: with a read-only root. Else
// the container's own layer is as good, and keeps what the image has there.
func (r *Runtime) imageVolumes(q nodeagent.StartRequest, image *imageInfo, security security, id string, user specs.User, taken map[string]bool) ([]nodeagent.Mount, error) {
	if !security.readOnlyRoot || len(image.config.Volumes) == 0 {
		return nil, nil
	}
	var list []nodeagent.Mount
	base := r.volumesDir(id)
	for v := range image.config.Volumes {
		at := path.Join("/", v)
		if at == "/" || taken[at] {
			continue
		}
		dir := filepath.Join(base, fmt.Sprint(len(list)))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(user.UID), int(user.GID)); err != nil {
			return nil, err
		}
		list = append(list, nodeagent.Mount{HostPath: dir, ContainerPath: at})
	}
	return list, nil
}

func (r *Runtime) volumesDir(id string) string {
	return filepath.Join(r.opts.DataDir, "image-volumes", id)
}
