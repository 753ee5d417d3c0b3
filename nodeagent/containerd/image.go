package containerd

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

const (
	// maxConfig bounds an image's configuration, which anybody may have written.
	maxConfig = 4 << 20
	// maxKnownImages bounds what is kept in memory of images.
	maxKnownImages = 512
)

// imageStore has images pulled, and keeps of each what a start needs.
type imageStore struct {
	client      *client.Client
	snapshotter string
	platform    platforms.MatchComparer
	log         *slog.Logger
	mirrors     map[string][]string
	wire        *wire
	owner       string // the instance; "": a person at the machine
	run         string // tells this run from those before
	byHand      string // the instance for which that person works; "" when nobody does
	disk        *imageDisk
	looks       string        // where images are mounted to look into them; "": where temporary files are
	slots       chan struct{} // one per pull under way
	flight      singleflight.Group
	turns       podLocks        // by image name: one pull at a time, with whatever credentials
	life        context.Context // of pulls, which go on when their caller leaves
	end         context.CancelFunc
	pulls       sync.WaitGroup

	mu    sync.Mutex
	known map[digest.Digest]*imageInfo // by the target's digest; immutable values
	going map[string]*pulling          // by name, then credentials: pulls that are going on
}

// imageInfo is an image as a start needs it. It is never changed.
type imageInfo struct {
	target  digest.Digest
	config  ocispec.ImageConfig
	chainID string // of the snapshot that containers' snapshots stand on
	bytes   int64  // of the layers as pulled
	arch    string // as the image says
	files   *imageFiles
}

func newImageStore(c *client.Client, o Options) *imageStore {
	pulls := o.Pulls
	if pulls <= 0 {
		pulls = 4
	}
	s := &imageStore{
		client: c, snapshotter: o.Snapshotter, platform: platforms.DefaultStrict(), log: o.Logger,
		mirrors: o.Mirrors, wire: newWire(o.pace), owner: o.Instance, run: rand.Text(), slots: make(chan struct{}, pulls),
		disk:  &imageDisk{client: c, snapshotter: o.Snapshotter, usage: o.usage},
		known: map[digest.Digest]*imageInfo{}, going: map[string]*pulling{},
	}
	if o.RunDir != "" {
		s.looks = filepath.Join(o.RunDir, "looks")
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// close cuts off pulls under way.
func (s *imageStore) close() {
	s.end()
	s.pulls.Wait()
	s.wire.close()
}

// Image makes the image present by its policy. Errors wrap schema.ErrRefused for
// a name that is none or an image that cannot be used, schema.ErrNotFound for
// one the registry does not have or does not show us (or policy Never does not
// find), and schema.ErrUnavailable for all that time may heal.
func (r *Runtime) Image(ctx context.Context, q nodeagent.ImageRequest) (nodeagent.Image, error) {
	began := time.Now()
	name, err := normalize(q.Image)
	if err != nil {
		return nodeagent.Image{}, err
	}
	info, pulled, err := r.images.present(ctx, name, q)
	if err != nil {
		return nodeagent.Image{}, fmt.Errorf("image %s: %w", q.Image, err)
	}
	return nodeagent.Image{
		Ref: name, ID: imageID(name, info.target), User: info.config.User,
		Pulled: pulled, Took: time.Since(began), Bytes: info.bytes,
	}, nil
}

// normalize writes a name out: nginx is docker.io/library/nginx:latest.
func normalize(image string) (string, error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return "", fmt.Errorf("image name %q: %s: %w", image, oneLine(err), schema.ErrRefused)
	}
	return named.String(), nil
}

// imageID is repository@digest.
func imageID(name string, target digest.Digest) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return target.String()
	}
	return reference.TrimNamed(named).Name() + "@" + target.String()
}

// present finds the image or pulls it.
func (s *imageStore) present(ctx context.Context, name string, q nodeagent.ImageRequest) (_ *imageInfo, pulled bool, err error) {
	if q.Policy != corev1.PullAlways {
		info, err := s.find(ctx, name)
		if err == nil || !errors.Is(err, schema.ErrNotFound) {
			return info, false, err
		}
		if q.Policy == corev1.PullNever {
			return nil, false, fmt.Errorf("not on this node, and imagePullPolicy is Never: %w", schema.ErrNotFound)
		}
	}
	if q.Pulling != nil {
		q.Pulling()
	}
	return s.pullOnce(ctx, name, q)
}

// startable returns what a start needs of an image that Image said is here; it
// asks containerd only when this process does not know the image.
func (s *imageStore) startable(ctx context.Context, img nodeagent.Image) (*imageInfo, error) {
	_, id, _ := strings.Cut(img.ID, "@")
	s.mu.Lock()
	info := s.known[digest.Digest(id)]
	s.mu.Unlock()
	if info != nil {
		return info, nil
	}
	return s.find(ctx, img.Ref)
}

// lookUpWithin bounds how long containerd may take to say whether it has an image.
const lookUpWithin = 10 * time.Second

// find looks up an image that is whole and unpacked here.
func (s *imageStore) find(ctx context.Context, name string) (*imageInfo, error) {
	limited, cancel := within(ctx, lookUpWithin)
	defer cancel()
	img, err := s.client.ImageService().Get(limited, name)
	if err != nil {
		if gone(err) {
			return nil, fmt.Errorf("not on this node: %w", schema.ErrNotFound)
		}
		return nil, unavailable("look up the image", err)
	}
	return s.info(ctx, img)
}

// info returns what a start needs of an image; ErrNotFound when part of it is
// not here, so that it is pulled again.
func (s *imageStore) info(ctx context.Context, img images.Image) (*imageInfo, error) {
	s.mu.Lock()
	info := s.known[img.Target.Digest]
	s.mu.Unlock()
	if info != nil {
		_, err := s.client.SnapshotService(s.snapshotter).Stat(ctx, info.chainID)
		switch {
		case err == nil:
			return info, nil
		case !gone(err):
			return nil, unavailable("look up the image's snapshot", err)
		}
	}
	info, err := s.read(ctx, img)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnownImages {
		clear(s.known) // read again when needed
	}
	s.known[img.Target.Digest] = info
	return info, nil
}

// read reads an image's manifest and configuration, and unpacks its layers if
// nobody has.
func (s *imageStore) read(ctx context.Context, img images.Image) (*imageInfo, error) {
	cs := s.client.ContentStore()
	manifest, err := images.Manifest(ctx, cs, img.Target, s.platform)
	if err != nil {
		return nil, missing("manifest", err)
	}
	if manifest.Config.Size > maxConfig {
		return nil, fmt.Errorf("its configuration has %d bytes, more than %d: %w", manifest.Config.Size, maxConfig, schema.ErrRefused)
	}
	raw, err := content.ReadBlob(ctx, cs, manifest.Config)
	if err != nil {
		return nil, missing("configuration", err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("its configuration is not valid: %s: %w", oneLine(err), schema.ErrRefused)
	}
	info := &imageInfo{target: img.Target.Digest, config: config.Config, arch: config.Architecture, chainID: identity.ChainID(config.RootFS.DiffIDs).String()}
	for _, l := range manifest.Layers {
		info.bytes += l.Size
	}
	if err := s.unpack(ctx, img, info); err != nil {
		return nil, err
	}
	info.files = s.filesOf(info.chainID)
	return info, nil
}

// filesOf is shared by images that differ only in their configuration.
func (s *imageStore) filesOf(chainID string) *imageFiles {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, info := range s.known {
		if info.chainID == chainID {
			return info.files
		}
	}
	return &imageFiles{read: func(ctx context.Context) (fileFacts, error) { return s.readFiles(ctx, chainID) }}
}

func (s *imageStore) unpack(ctx context.Context, img images.Image, info *imageInfo) error {
	switch _, err := s.client.SnapshotService(s.snapshotter).Stat(ctx, info.chainID); {
	case err == nil:
		return nil
	case !gone(err):
		return unavailable("look up the image's snapshot", err)
	}
	image := client.NewImageWithPlatform(s.client, img, s.platform)
	if err := image.Unpack(ctx, s.snapshotter); err != nil {
		return missing("layers", err)
	}
	return nil
}

// missing classifies what went wrong with content that should be here.
func missing(what string, err error) error {
	switch {
	case gone(err):
		return fmt.Errorf("its %s is not on this node: %w", what, schema.ErrNotFound)
	case unreachable(err):
		return unavailable("read the image's "+what, err)
	default:
		return fmt.Errorf("its %s cannot be used: %s: %w", what, oneLine(err), schema.ErrRefused)
	}
}
