package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// maxCredentialsFile bounds a Docker configuration file, in bytes.
const maxCredentialsFile = 1 << 20

// NodeImage is an image on a node, for a person.
type NodeImage struct {
	Name     string            `json:"name"`
	ID       string            `json:"id"`                // the digest of what the name stands for
	Size     int64             `json:"size"`              // of the layers for this platform as they were pulled, in bytes
	Whole    bool              `json:"whole"`             // all that this platform needs is here
	Created  *time.Time        `json:"created,omitempty"` // as the image says
	Arrived  time.Time         `json:"arrived"`
	LastUsed *time.Time        `json:"lastUsed,omitempty"`
	Imported *time.Time        `json:"imported,omitempty"` // by hand
	UsedBy   []string          `json:"usedBy"`             // containers, as namespace/pod/container
	Platform string            `json:"platform,omitempty"`
	Config   *NodeImageConfig  `json:"config,omitempty"`
	Layers   []string          `json:"layers,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"` // of the image itself
}

// NodeImageConfig is what of an image's configuration a container gets.
type NodeImageConfig struct {
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
	Entrypoint []string `json:"entrypoint,omitempty"`
	Command    []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`
	Ports      []string `json:"exposedPorts,omitempty"`
	Volumes    []string `json:"volumes,omitempty"`
	StopSignal string   `json:"stopSignal,omitempty"`
}

// store is how the person at the machine works with the node's images.
func (i *Importer) store(mirrors map[string][]string) *imageStore {
	s := newImageStore(i.client, Options{Snapshotter: "overlayfs", Mirrors: mirrors, Logger: slog.New(slog.DiscardHandler)})
	s.byHand = i.instance
	return s
}

// Images lists the node's images by name.
func (i *Importer) Images(ctx context.Context) ([]NodeImage, error) {
	s := i.store(nil)
	defer s.close()
	all, err := i.client.ImageService().List(ctx)
	if err != nil {
		return nil, unavailable("list the images", err)
	}
	users, err := s.users(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]NodeImage, len(all))
	for n, img := range all {
		list[n] = s.describe(ctx, img, users)
	}
	slices.SortFunc(list, func(a, b NodeImage) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Image is the image of that name, or whose ID begins so; schema.ErrNotFound when
// there is none, schema.ErrConflict when there are several.
func (i *Importer) Image(ctx context.Context, name string) (NodeImage, error) {
	list, err := i.Images(ctx)
	if err != nil {
		return NodeImage{}, err
	}
	return pickImage(list, name)
}

// minID is how much of an ID must be said, in hexadecimal digits.
const minID = 4

func pickImage(list []NodeImage, name string) (NodeImage, error) {
	if full, err := normalize(name); err == nil {
		if n := slices.IndexFunc(list, func(img NodeImage) bool { return img.Name == full }); n >= 0 {
			return list[n], nil
		}
	}
	var found []NodeImage
	for _, img := range list {
		_, hex, _ := strings.Cut(img.ID, ":")
		if len(name) >= minID && strings.HasPrefix(hex, name) || img.ID == name {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return NodeImage{}, fmt.Errorf("image %s: not on this node: %w", name, schema.ErrNotFound)
	case 1:
		return found[0], nil
	}
	var names []string
	for _, img := range found {
		names = append(names, img.Name)
	}
	return NodeImage{}, fmt.Errorf("image %s: which of %s: %w", name, strings.Join(names, ", "), schema.ErrConflict)
}

// describe says of an image what can be said; what cannot be read is left out.
func (s *imageStore) describe(ctx context.Context, img images.Image, users imageUsers) NodeImage {
	d := NodeImage{Name: img.Name, ID: img.Target.Digest.String(), Arrived: img.CreatedAt, UsedBy: users.of(img)}
	if d.UsedBy == nil {
		d.UsedBy = []string{}
	}
	for key, value := range img.Labels {
		at := moment(value)
		if at.IsZero() {
			continue
		}
		if key == labelImported {
			d.Imported = &at
		}
		if strings.HasPrefix(key, labelUsedBy) && (d.LastUsed == nil || at.After(*d.LastUsed)) {
			d.LastUsed = &at
		}
	}
	store := s.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, img.Target, s.platform)
	if err != nil || manifest.Config.Size > maxConfig {
		return d
	}
	d.Whole = true
	for _, l := range manifest.Layers {
		d.Size += l.Size
		d.Layers = append(d.Layers, l.Digest.String())
		if _, err := store.Info(ctx, l.Digest); err != nil {
			d.Whole = false
		}
	}
	raw, err := content.ReadBlob(ctx, store, manifest.Config)
	var config ocispec.Image
	if err != nil || json.Unmarshal(raw, &config) != nil {
		d.Whole = false
		return d
	}
	if config.Created != nil && config.Created.Unix() > 0 {
		d.Created = config.Created
	}
	if config.OS != "" {
		d.Platform = platforms.Format(config.Platform)
	}
	d.Labels, d.Config = config.Config.Labels, configOf(config.Config)
	return d
}

func configOf(c ocispec.ImageConfig) *NodeImageConfig {
	d := &NodeImageConfig{User: c.User, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, Command: c.Cmd, Env: c.Env, StopSignal: c.StopSignal}
	for p := range c.ExposedPorts {
		d.Ports = append(d.Ports, p)
	}
	for v := range c.Volumes {
		d.Volumes = append(d.Volumes, v)
	}
	slices.Sort(d.Ports)
	slices.Sort(d.Volumes)
	return d
}

// PullOptions says how a person pulls an image.
type PullOptions struct {
	Mirrors map[string][]string // as in Options
	// Credentials is a Docker configuration file ({"auths": …}); nil: nobody's.
	Credentials io.Reader
	Progress    func(nodeagent.PullProgress) // nil: nobody looks on
}

// PullImage pulls an image that is not here, or has changed, and returns its name
// and ID. It stays for an hour at least though nothing uses it.
func (i *Importer) PullImage(ctx context.Context, image string, o PullOptions) (nodeagent.Image, error) {
	var auth []corev1.Secret
	if o.Credentials != nil {
		secret, err := readCredentials(o.Credentials)
		if err != nil {
			return nodeagent.Image{}, err
		}
		auth = append(auth, secret)
	}
	for host, urls := range o.Mirrors {
		for _, u := range urls {
			if _, err := parseMirror(u); err != nil {
				return nodeagent.Image{}, fmt.Errorf("mirror of %s: %w", host, err)
			}
		}
	}
	name, err := normalize(image)
	if err != nil {
		return nodeagent.Image{}, err
	}
	began, s := time.Now(), i.store(o.Mirrors)
	defer s.close()
	info, pulled, err := s.present(ctx, name, nodeagent.ImageRequest{Image: image, Policy: corev1.PullAlways, Auth: auth, Progress: o.Progress})
	if err != nil {
		return nodeagent.Image{}, fmt.Errorf("image %s: %w", image, err)
	}
	if !pulled { // that somebody wants it is news all the same
		if err := s.labelImage(ctx, name, s.usedNow(nil)); err != nil {
			return nodeagent.Image{}, err
		}
	}
	return nodeagent.Image{Ref: name, ID: imageID(name, info.target), Pulled: pulled, Took: time.Since(began), Bytes: info.bytes}, nil
}

func readCredentials(r io.Reader) (corev1.Secret, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxCredentialsFile+1))
	if err != nil {
		return corev1.Secret{}, err
	}
	s := corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: raw}}
	auths, err := authsOf(s)
	switch {
	case len(raw) > maxCredentialsFile || err != nil:
		return s, fmt.Errorf("the credentials are not a Docker configuration file: %w", schema.ErrRefused)
	case len(auths) == 0:
		return s, fmt.Errorf(`the credentials hold no login; a Docker configuration file has them below "auths", unless a helper keeps them: %w`, schema.ErrRefused)
	}
	return s, nil
}

// RemoveImage removes an image by its name or ID and returns what it was, when
// its space is free. One of which containers exist is schema.ErrConflict, unless
// forced: the containers go on, and the image is pulled when they restart.
func (i *Importer) RemoveImage(ctx context.Context, name string, force bool) (NodeImage, error) {
	img, err := i.Image(ctx, name)
	if err != nil {
		return img, err
	}
	if n := len(img.UsedBy); n > 0 && !force {
		return img, fmt.Errorf("image %s is in use by %s: %w", img.Name, fewOf(img.UsedBy), schema.ErrConflict)
	}
	if err := i.client.ImageService().Delete(ctx, img.Name, images.SynchronousDelete()); err != nil {
		if gone(err) {
			return img, nil // somebody else was faster
		}
		return img, unavailable("remove image "+img.Name, err)
	}
	return img, nil
}

// fewOf lists the first of many.
func fewOf(list []string) string {
	const few = 3
	if len(list) <= few {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:few], ", "), len(list)-few)
}

// markImported writes down that a person brought images here.
func (i *Importer) markImported(ctx context.Context, names []string) error {
	s := i.store(nil)
	defer s.close()
	var faults []error
	for _, n := range names {
		faults = append(faults, s.labelImage(ctx, n, map[string]string{labelImported: stamp(time.Now()), labelUsedBy + i.instance: stamp(time.Now())}))
	}
	return errors.Join(faults...)
}
