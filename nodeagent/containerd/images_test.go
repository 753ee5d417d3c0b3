package containerd

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// An entry is a file, a link or a folder of a test image.
type imageFile struct {
	name, text, link string
	mode             int64
	uid              int
	dir              bool
}

// busyboxFiles are busybox from Debian's busybox-static and the names by which
// the tests call it.
func busyboxFiles() ([]imageFile, error) {
	raw, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: the tests' images need Debian's busybox-static", err)
	}
	files := []imageFile{
		{name: "bin/busybox", text: string(raw), mode: 0o755},
		{name: "etc/passwd", text: "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235::/home/app:/bin/sh\n", mode: 0o644},
		{name: "etc/group", text: "root:x:0:\napp:x:1235:\nextra:x:4242:app\n", mode: 0o644},
		{name: "tmp", dir: true, mode: 0o1777},
		{name: "data", dir: true, mode: 0o755, uid: 1234},
	}
	for _, applet := range strings.Fields("sh sleep cat echo id env true false seq yes head mount hostname grep ls test stat dd touch ip kill wc ulimit od printf tr") {
		files = append(files, imageFile{name: "bin/" + applet, link: "/bin/busybox"})
	}
	return files, nil
}

func imageOf(files []imageFile, config v1.Config) (v1.Image, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.uid, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		switch {
		case f.dir:
			h.Typeflag, h.Size = tar.TypeDir, 0
		case f.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", config
	return mutate.ConfigFile(img, file)
}

func busybox(config v1.Config) (v1.Image, error) {
	files, err := busyboxFiles()
	if err != nil {
		return nil, err
	}
	return imageOf(files, config)
}

// serveImages serves busybox as docker.io would.
func serveImages() (*httptest.Server, error) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	img, err := busybox(v1.Config{Cmd: []string{"/bin/sh"}, Labels: map[string]string{"containerd.io/evil": "1", "evil": "1"}})
	if err == nil {
		err = push(server.URL, "library/busybox:1.37", img)
	}
	if err == nil {
		img, err = busybox(v1.Config{StopSignal: "SIGQUIT", User: "app", WorkingDir: "/tmp", Env: []string{"FROM=image", "PATH=/bin"}, Entrypoint: []string{"/bin/echo", "entry"}, Cmd: []string{"cmd"}, Volumes: map[string]struct{}{"/data": {}}})
	}
	if err == nil {
		err = push(server.URL, "library/stopper:1", img)
	}
	if err == nil {
		img, err = busybox(v1.Config{User: "stranger"})
	}
	if err == nil {
		err = push(server.URL, "library/nobody:1", img)
	}
	if err != nil {
		server.Close()
		return nil, err
	}
	return server, nil
}

func push(url, repository string, img v1.Image) error {
	ref, err := name.ParseReference(path.Join(strings.TrimPrefix(url, "http://"), repository), name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img)
}
