package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// maxParts bounds how many blobs one image may be made of, manifests included.
const maxParts = 1000

// An admission looks at each part of an image before it is fetched, and refuses
// what no container can be made of: a registry may say anything. It also knows
// what there is to fetch.
type admission struct {
	room func() int64 // bytes free where images lie; -1: not known

	mu    sync.Mutex
	parts []ocispec.Descriptor
	bytes int64
}

// watch looks at all that a handler says is to be fetched next.
func (a *admission) watch(next images.Handler) images.Handler {
	return images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		parts, err := next.Handle(ctx, d)
		if err == nil {
			err = a.admit(parts...)
		}
		return parts, err
	})
}

func (a *admission) admit(parts ...ocispec.Descriptor) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range parts {
		if err := admissible(d); err != nil {
			return err
		}
		if slices.ContainsFunc(a.parts, func(x ocispec.Descriptor) bool { return x.Digest == d.Digest }) {
			continue
		}
		a.parts = append(a.parts, d)
		a.bytes += min(d.Size, math.MaxInt64-a.bytes) // a stranger's number: more than a number holds does not fit either
	}
	if len(a.parts) > maxParts {
		return fmt.Errorf("it has more than %d parts: %w", maxParts, schema.ErrRefused)
	}
	if free := a.room(); free >= 0 && a.bytes > free {
		return fmt.Errorf("it has at least %v and there are %v free on this node's disk: %w", nodeagent.Bytes(a.bytes), nodeagent.Bytes(free), schema.ErrUnavailable)
	}
	return nil
}

// known is what there is to fetch, as far as it is known by now.
func (a *admission) known() []ocispec.Descriptor {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.parts)
}

func admissible(d ocispec.Descriptor) error {
	most := int64(-1)
	switch {
	case images.IsManifestType(d.MediaType), images.IsIndexType(d.MediaType):
		most = maxManifest
	case images.IsKnownConfig(d.MediaType), images.IsConfigType(d.MediaType), d.MediaType == docker.LegacyConfigMediaType:
		most = maxConfig
	case images.IsLayerType(d.MediaType):
	default:
		return fmt.Errorf("part of it has the media type %q, which is not an image's: %w", printable(d.MediaType), schema.ErrRefused)
	}
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("part of it has the digest %q, which is none: %w", printable(d.Digest.String()), schema.ErrRefused)
	}
	switch {
	case d.Size <= 0:
		return fmt.Errorf("%s is said to have %d bytes: %w", d.Digest, d.Size, schema.ErrRefused)
	case most >= 0 && d.Size > most:
		return fmt.Errorf("%s (%s) has %d bytes, more than %d: %w", d.Digest, d.MediaType, d.Size, most, schema.ErrRefused)
	case len(d.URLs) > 0:
		// The library would fetch it from there, past the registry and all bounds.
		return fmt.Errorf("%s lies outside of the registry: %w", d.Digest, schema.ErrRefused)
	}
	return nil
}

// printable is text of a stranger, for a message.
func printable(s string) string {
	const most = 128
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
}

// platformsIn lists for which platforms an index that is here has images.
func platformsIn(ctx context.Context, from content.Provider, target ocispec.Descriptor) (names []string) {
	if !images.IsIndexType(target.MediaType) || target.Size > maxManifest {
		return nil
	}
	raw, err := content.ReadBlob(ctx, from, target)
	if err != nil {
		return nil
	}
	var index ocispec.Index
	if json.Unmarshal(raw, &index) != nil {
		return nil
	}
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" && len(names) < 16 {
			names = append(names, printable(platforms.Format(*m.Platform)))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
