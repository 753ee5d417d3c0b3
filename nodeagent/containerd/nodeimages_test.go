package containerd

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/pawl-project/pawl/schema"
)

func TestPickImage(t *testing.T) {
	list := []NodeImage{
		{Name: "docker.io/library/nginx:1", ID: "sha256:abcd1111"}, {Name: "docker.io/library/nginx:2", ID: "sha256:abcd2222"},
		{Name: "r.test/a:1", ID: "sha256:ffff0000"}, {Name: "r.test/b:1", ID: "sha256:ffff0000"},
	}
	for name, want := range map[string]string{
		"nginx:1": "docker.io/library/nginx:1", "docker.io/nginx:2": "docker.io/library/nginx:2", "abcd1": "docker.io/library/nginx:1",
		"sha256:abcd2222": "docker.io/library/nginx:2", "r.test/b:1": "r.test/b:1",
	} {
		if got, err := pickImage(list, name); err != nil || got.Name != want {
			t.Errorf("%s: %s, %v; want %s", name, got.Name, err, want)
		}
	}
	for name, class := range map[string]error{
		"abcd": schema.ErrConflict, "ffff": schema.ErrConflict, "abc": schema.ErrNotFound, "nginx": schema.ErrNotFound, "": schema.ErrNotFound, "NOT A NAME": schema.ErrNotFound,
	} {
		if _, err := pickImage(list, name); !errors.Is(err, class) {
			t.Errorf("%q: %v, want %v", name, err, class)
		}
	}
}

// A person's images: what came by hand is marked and stays; what is in use is not
// removed by mistake.
func TestNodeImages(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	img, err := random.Image(100_000, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := push(reg.URL, "team/tool:1", img); err != nil {
		t.Fatal(err)
	}
	node, err := Dial(g.opts.Address, g.opts.Instance)
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	g.image("busybox:1.37")
	before := g.imageCounts()
	name := reg.host() + "/team/tool:1"
	pulled, err := node.PullImage(g.ctx, name, PullOptions{})
	if err != nil || !pulled.Pulled || pulled.Ref != name {
		t.Fatalf("%+v, %v", pulled, err)
	}
	got, err := node.Image(g.ctx, name)
	if err != nil || !got.Whole || got.Size < 100_000 || got.Imported == nil || got.LastUsed == nil || len(got.UsedBy) > 0 || len(got.Layers) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	g.rt.gc.minAge = 0
	clear(g.rt.gc.used)
	if free, err := g.rt.gc.unused(g.ctx, nil); err != nil || len(free) > 0 && free[0].name == name {
		t.Errorf("%v, %v", free, err)
	}
	p := g.pod("user")
	p.add("main", "sleep", "1000")
	p.sandbox()
	p.start("main", 0)
	if _, err := node.RemoveImage(g.ctx, "busybox:1.37", false); !errors.Is(err, schema.ErrConflict) || !strings.Contains(err.Error(), "default/user/main") {
		t.Errorf("%v", err)
	}
	p.remove()
	if _, err := node.RemoveImage(g.ctx, name, false); err != nil {
		t.Error(err)
	}
	g.imagesAsBefore(t, before)
	for _, bad := range []string{"", "{", `{"auths":{}}`, `{"credsStore":"x"}`} {
		if _, err := node.PullImage(g.ctx, name, PullOptions{Credentials: strings.NewReader(bad)}); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("credentials %q: %v", bad, err)
		}
	}
	if _, err := node.PullImage(g.ctx, name, PullOptions{Mirrors: map[string][]string{"x": {"y"}}}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v", err)
	}
}
