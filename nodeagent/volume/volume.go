package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// Options say where volumes lie. Both directories are the package's own: every
// name in them is taken for a pod's uid.
type Options struct {
	// DataDir is on the node's disk.
	DataDir string
	// RunDir is where file systems in memory are mounted.
	RunDir string
	// Capacity of the node stands in for limits that a container does not set
	// (resourceFieldRef). Default: the machine's.
	Capacity func() corev1.ResourceList
}

// Volumes are the volumes of one instance on this node. Its methods may be called
// from any goroutine; those for one pod are called one at a time.
type Volumes struct {
	dataDir  string
	runDir   string
	capacity func() corev1.ResourceList
	mounter  string // the program that mounts network file systems
}

var _ nodeagent.Volumes = (*Volumes)(nil)

// New touches nothing.
func New(o Options) *Volumes {
	if o.Capacity == nil {
		o.Capacity = machineCapacity
	}
	return &Volumes{dataDir: o.DataDir, runDir: o.RunDir, capacity: o.Capacity, mounter: "mount"}
}

// Setup makes the pod's volumes, or brings the files of objects up to date. A
// missing object that is not optional wraps schema.ErrNotFound and names it; when
// the volume was made before, it keeps its files, as it does when a token cannot be
// had, and the error wraps nodeagent.ErrOutdated too if that is all that went wrong.
func (v *Volumes) Setup(ctx context.Context, p *corev1.Pod, objects nodeagent.Objects) error {
	if err := checkUID(p.UID); err != nil {
		return err
	}
	var outdated error
	for i := range p.Spec.Volumes {
		if err := ctx.Err(); err != nil {
			return err
		}
		vol := &p.Spec.Volumes[i]
		err := v.setup(ctx, p, vol, objects)
		switch {
		case err == nil:
		case errors.Is(err, nodeagent.ErrOutdated):
			outdated = errors.Join(outdated, fmt.Errorf("volume %s: %w", vol.Name, err))
		default:
			return fmt.Errorf("volume %s: %w", vol.Name, err)
		}
	}
	return outdated
}

func (v *Volumes) setup(ctx context.Context, p *corev1.Pod, vol *corev1.Volume, objects nodeagent.Objects) error {
	if err := checkName(vol.Name); err != nil {
		return err
	}
	k, err := kindOf(vol)
	if err != nil {
		return err
	}
	dir := v.dir(p.UID, vol)
	group := fsGroup(p)
	switch {
	case k.host:
		return setupHostPath(vol.HostPath)
	case k.nfs:
		return v.setupNFS(ctx, dir, vol.NFS)
	case !k.files:
		return v.setupEmpty(p, dir, vol.EmptyDir, group)
	}
	// First the files, then the directory: a pod that waits for an object holds nothing.
	f := filer{pod: p, objects: objects, capacity: v.capacity, token: tokensFor(ctx, p, dir, objects)}
	files, err := f.volume(vol)
	if (errors.Is(err, schema.ErrNotFound) || isTokenError(err)) && holdsFiles(dir) {
		return fmt.Errorf("%w: %w", err, nodeagent.ErrOutdated)
	}
	if err != nil {
		return err
	}
	if k.memory {
		if err := ensureMemory(dir, 0, 0o755, nil); err != nil {
			return err
		}
	} else if err := ensureDir(dir); err != nil {
		return err
	}
	return writeFiles(dir, files, group)
}

// A kind is what matters of the volume's source.
type kind struct {
	files  bool // files of objects, never written by containers
	memory bool // on a tmpfs
	host   bool // the node's own
	nfs    bool // mounted below RunDir
}

// kindOf refuses sources that are not built, with what to do about it.
func kindOf(vol *corev1.Volume) (kind, error) {
	switch s := &vol.VolumeSource; {
	case s.ConfigMap != nil, s.DownwardAPI != nil:
		return kind{files: true}, nil
	case s.Secret != nil:
		return kind{files: true, memory: true}, nil
	case s.Projected != nil:
		return kind{files: true, memory: slices.ContainsFunc(s.Projected.Sources, func(x corev1.VolumeProjection) bool {
			return x.Secret != nil || x.ServiceAccountToken != nil
		})}, nil
	case s.EmptyDir != nil:
		return kind{memory: s.EmptyDir.Medium == corev1.StorageMediumMemory}, nil
	case s.PersistentVolumeClaim != nil:
		return kind{}, fmt.Errorf("waiting for claim %s: persistent storage is not built yet: %w", s.PersistentVolumeClaim.ClaimName, schema.ErrUnavailable)
	case s.HostPath != nil:
		return kind{host: true}, nil
	case s.NFS != nil:
		return kind{nfs: true}, nil
	case *s == corev1.VolumeSource{}:
		return kind{}, nil // without a source it is an emptyDir
	default:
		return kind{}, fmt.Errorf("its source is not supported; there are emptyDir, configMap, secret, projected, downwardAPI, hostPath and nfs: %w", schema.ErrRefused)
	}
}

// dir is where a volume of a supported kind lies.
func (v *Volumes) dir(uid types.UID, vol *corev1.Volume) string {
	base := v.dataDir
	k, err := kindOf(vol)
	switch {
	case err == nil && k.host:
		return filepath.Clean(vol.HostPath.Path)
	case err == nil && (k.memory || k.nfs):
		base = v.runDir
	}
	return filepath.Join(base, string(uid), vol.Name)
}

// setupEmpty makes an empty directory that every user of the pod may write to.
// One that is there keeps what is in it, and the owner and mode that its users
// gave it: databases want their directory for themselves.
func (v *Volumes) setupEmpty(p *corev1.Pod, dir string, e *corev1.EmptyDirVolumeSource, group *int64) error {
	switch {
	case e != nil && e.Medium == corev1.StorageMediumMemory:
		return ensureMemory(dir, v.memorySize(p, e.SizeLimit), emptyMode, group)
	case e != nil && e.Medium != corev1.StorageMediumDefault:
		return fmt.Errorf("emptyDir medium %q: must be empty or Memory: %w", e.Medium, schema.ErrRefused)
	}
	if _, err := os.Lstat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// It gets its name when it is as it should be, so that a name says that it is.
	raw := filepath.Join(filepath.Dir(dir), ourPrefix+"new-"+filepath.Base(dir))
	if err := ensureDir(raw); err != nil {
		return err
	}
	if err := ownDir(raw, emptyMode, group); err != nil {
		return err
	}
	return os.Rename(raw, dir)
}

// emptyMode is that of an empty directory.
const emptyMode fs.FileMode = 0o777

// ensureDir makes a directory below the instance's, which others may not enter.
func ensureDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("make its directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make its directory: %w", err)
	}
	return nil
}

// ownDir sets the mode, and with a group the setgid bit, so that what is made
// below belongs to the group too. It changes nothing that is right already.
func ownDir(dir string, mode fs.FileMode, group *int64) error {
	if group != nil {
		if err := os.Chown(dir, 0, int(*group)); err != nil {
			return fmt.Errorf("give it to group %d: %w", *group, err)
		}
		mode |= fs.ModeSetgid | groupMode
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fmt.Errorf("set its mode: %w", err)
	}
	return nil
}

// groupMode is what an fsGroup may do with a directory, besides that what is made
// there is the group's too.
const groupMode fs.FileMode = 0o070

func fsGroup(p *corev1.Pod) *int64 {
	if p.Spec.SecurityContext == nil {
		return nil
	}
	return p.Spec.SecurityContext.FSGroup
}

// Held lists the uids of pods that have volumes on this node, or what a cut-off
// Remove left of them.
func (v *Volumes) Held(ctx context.Context) ([]types.UID, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var uids []types.UID
	for _, dir := range []string{v.dataDir, v.runDir} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list the pods with volumes: %w", err)
		}
		for _, e := range entries {
			if uid := types.UID(e.Name()); checkUID(uid) == nil {
				uids = append(uids, uid)
			}
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

var (
	uidForm  = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]{0,127}$`)
	nameForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

func checkUID(uid types.UID) error {
	if !uidForm.MatchString(string(uid)) {
		return fmt.Errorf("pod uid %q: must be letters, digits, '-', '_' and '.': %w", uid, schema.ErrRefused)
	}
	return nil
}

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("volume name %q: must be one DNS label: %w", name, schema.ErrRefused)
	}
	return nil
}
