package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"

	"github.com/pawl-project/pawl/schema"
)

// Importer is how a person at the machine works with the images of a containerd
// that runs.
type Importer struct {
	client   *client.Client
	instance string // whose images they will be; "": nobody's
}

// Dial makes an Importer for the containerd at the address. It does not wait
// for it: its calls do, until their context ends.
func Dial(address, instance string) (*Importer, error) {
	c, err := dial(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, schema.ErrUnavailable)
	}
	return &Importer{c, instance}, nil
}

// Close drops the connection.
func (i *Importer) Close() error { return i.client.Close() }

// ImportImage reads an archive as `docker save` or OCI tools write it, unpacks
// its images for this platform and returns their names. An archive that is none
// wraps schema.ErrRefused.
func (i *Importer) ImportImage(ctx context.Context, archive io.Reader) ([]string, error) {
	names, err := importImages(ctx, i.client, "overlayfs", archive)
	if err != nil || i.instance == "" {
		return names, err
	}
	return names, i.markImported(ctx, names)
}

// ImportImage is Importer's, over the runtime's own connection.
func (r *Runtime) ImportImage(ctx context.Context, archive io.Reader) ([]string, error) {
	return importImages(ctx, r.client, r.opts.Snapshotter, archive)
}

func importImages(ctx context.Context, c *client.Client, snapshotter string, archive io.Reader) ([]string, error) {
	ctx = log.WithLogger(ctx, quiet)
	ctx, done, err := c.WithLease(ctx) // until it is unpacked, not only until it is read
	if err != nil {
		return nil, unavailable("take a lease", err)
	}
	defer func() {
		if err := done(context.WithoutCancel(ctx)); err != nil {
			log.G(ctx).Debug(err)
		}
	}()
	platform := platforms.DefaultStrict()
	found, err := c.Import(ctx, archive, client.WithImageRefTranslator(importName), client.WithImportPlatform(platform), client.WithSkipMissing())
	if err != nil {
		return nil, importFailed(err)
	}
	var names []string
	for _, img := range found {
		if err := client.NewImageWithPlatform(c, img, platform).Unpack(ctx, snapshotter); err != nil {
			return names, fmt.Errorf("unpack %s: %w", img.Name, importFailed(err))
		}
		names = append(names, img.Name)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("the archive holds no image with a name: %w", schema.ErrRefused)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// importName writes out the name that an archive gives an image; "" when it
// gives none: a bare tag names no repository.
func importName(name string) string {
	if !strings.ContainsAny(name, "/:@") {
		return ""
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return ""
	}
	return named.String()
}

func importFailed(err error) error {
	if unreachable(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return unavailable("import", err)
	}
	return fmt.Errorf("the archive cannot be used: %s: %w", oneLine(err), schema.ErrRefused)
}
