package build

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// A recipe makes the images of one repository, which differ by tag.
type recipe struct {
	tags   []string // the first is what a name without a tag means
	layers func(ctx context.Context, tag string) ([]packed, error)
	config func(tag string) v1.Config
}

// A packed is a layer's content, as pack writes it.
type packed []byte

var recipes = map[string]recipe{
	"busybox": {
		tags:   []string{"latest", "1", "1.28", "1.28.0", "1.35", "1.36", "stable", "musl", "glibc"},
		layers: busyboxLayers,
		config: func(string) v1.Config { return v1.Config{Cmd: []string{"sh"}} },
	},
	"hello": {
		tags:   []string{"latest", "1", "2", "3"},
		layers: helloLayers,
		config: helloConfig,
	},
	"nginx": {
		tags: []string{"latest", "1.7.1", "1.7.9", "1.8", "1.9.1", "1.14", "1.14.2", "1.15", "1.15.12", "1.16", "1.16.1", "1.17", "1.18",
			"1.19", "1.20", "1.21", "1.21.6", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27", "1.28", "alpine", "stable", "mainline"},
		layers: nginxLayers,
		config: nginxConfig,
	},
	"redis": {
		tags:   []string{"latest", "2.8", "3", "3.2", "4", "5", "5.0", "5.0.4", "6", "6.0", "6.0.5", "6.2", "7", "7.0", "7.2", "8.0.2", "alpine"},
		layers: redisLayers,
		config: redisConfig,
	},
}

// Names lists every image that can be built, as repository:tag.
func Names() []string {
	var names []string
	for _, repository := range sortedKeys(recipes) {
		for _, tag := range recipes[repository].tags {
			names = append(names, repository+":"+tag)
		}
	}
	return names
}

// Known says whether an image of that name can be built. A name without a tag
// means latest.
func Known(name string) bool {
	repository, tag := split(name)
	return slices.Contains(recipes[repository].tags, tag)
}

// Images builds images, given by names such as "nginx:1.7.9" or "hello", and
// returns them by those names.
func Images(ctx context.Context, names ...string) (map[string]v1.Image, error) {
	images := make(map[string]v1.Image, len(names))
	for _, name := range names {
		image, err := build(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("build image %s: %w", name, err)
		}
		images[name] = image
	}
	return images, nil
}

func split(name string) (repository, tag string) {
	repository, tag, ok := strings.Cut(name, ":")
	if !ok {
		tag = "latest"
	}
	return repository, tag
}

// building lets two builds of one process not do the same work at the same time.
var building sync.Mutex

func build(ctx context.Context, name string) (v1.Image, error) {
	if !Known(name) {
		return nil, fmt.Errorf("there is no such image; there are %s", strings.Join(sortedKeys(recipes), ", "))
	}
	building.Lock()
	defer building.Unlock()
	repository, tag := split(name)
	r := recipes[repository]
	parts, err := r.layers(ctx, tag)
	if err != nil {
		return nil, err
	}
	layers := make([]v1.Layer, len(parts))
	for i, text := range parts {
		if layers[i], err = layer(text); err != nil {
			return nil, err
		}
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = r.config(tag)
	file.Config.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, file.Config.Env...)
	return mutate.ConfigFile(image, file)
}
