package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestZZ(t *testing.T) {
	g := newRig(t)
	g.image("busybox:1.37")
	raw := newRawClient(t)
	p := g.pod("x")
	p.add("main", "sleep", "100000")
	p.sandbox()
	sb, _ := g.rt.sandbox(p.UID)
	img, err := g.rt.images.find(g.ctx, "docker.io/library/busybox:1.37")
	if err != nil {
		t.Fatal(err)
	}
	full, err := g.rt.spec(g.ctx, p.request("main", 0), img, sb, "x")
	if err != nil {
		t.Fatal(err)
	}
	clone := func() *specs.Spec {
		var s specs.Spec
		b, _ := json.Marshal(full)
		json.Unmarshal(b, &s)
		return &s
	}
	variants := map[string]func(id string) *specs.Spec{
		"full":      func(id string) *specs.Spec { return clone() },
		"noseccomp": func(id string) *specs.Spec { s := clone(); s.Linux.Seccomp = nil; return s },
		"nocgmount": func(id string) *specs.Spec {
			s := clone()
			var m []specs.Mount
			for _, x := range s.Mounts {
				if x.Type != "cgroup" {
					m = append(m, x)
				}
			}
			s.Mounts = m
			return s
		},
		"nobinds": func(id string) *specs.Spec {
			s := clone()
			var m []specs.Mount
			for _, x := range s.Mounts {
				if x.Type != "bind" {
					m = append(m, x)
				}
			}
			s.Mounts = m
			return s
		},
		"nomask": func(id string) *specs.Spec {
			s := clone()
			s.Linux.MaskedPaths = nil
			s.Linux.ReadonlyPaths = nil
			return s
		},
		"nodev": func(id string) *specs.Spec { s := clone(); s.Linux.Resources.Devices = nil; return s },
		"nores": func(id string) *specs.Spec { s := clone(); s.Linux.Resources = &specs.LinuxResources{}; return s },
		"nooom": func(id string) *specs.Spec { s := clone(); s.Process.OOMScoreAdj = nil; return s },
		"nocggrp": func(id string) *specs.Spec {
			s := clone()
			s.Linux.CgroupsPath = "/pawl/" + g.opts.Instance + "/x" + id
			return s
		},
		"nons": func(id string) *specs.Spec {
			s := clone()
			for i := range s.Linux.Namespaces {
				s.Linux.Namespaces[i].Path = ""
			}
			return s
		},
		"minimal": func(id string) *specs.Spec {
			s := clone()
			s.Linux.Seccomp = nil
			var m []specs.Mount
			for _, x := range s.Mounts {
				if x.Type != "cgroup" && x.Type != "bind" {
					m = append(m, x)
				}
			}
			s.Mounts = m
			s.Linux.MaskedPaths = nil
			s.Linux.ReadonlyPaths = nil
			return s
		},
		"rawdefault": nil,
	}
	cpu := map[string][]time.Duration{}
	times := map[string][][3]time.Duration{}
	n := 0
	for range 12 {
		for name, f := range variants {
			n++
			id := fmt.Sprintf("zz-%d-%d", unix.Getpid(), n)
			opt := client.WithNewSpec(oci.WithImageConfigArgs(raw.image, []string{"sleep", "1000000"}), oci.WithCgroup("/pawl/"+g.opts.Instance+"/y"+id))
			if f != nil {
				s := f(id)
				s.Annotations = nil
				if name != "nocggrp" {
					s.Linux.CgroupsPath = g.rt.podCgroup(p.UID) + "/" + id
				}
				opt = func(ctx context.Context, c *client.Client, co *containers.Container) error {
					return client.WithSpec(s)(ctx, c, co)
				}
			}
			u0 := usage("pcbench", "pawl/"+g.opts.Instance)
			a := time.Now()
			c, err := raw.NewContainer(raw.ctx, id, client.WithImage(raw.image), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, raw.image), opt)
			if err != nil {
				t.Fatal(err)
			}
			b := time.Now()
			tk, err := c.NewTask(raw.ctx, cio.NullIO)
			if err != nil {
				t.Fatal(name, err)
			}
			cc := time.Now()
			if err := tk.Start(raw.ctx); err != nil {
				t.Fatal(err)
			}
			d := time.Now()
			cpu[name] = append(cpu[name], usage("pcbench", "pawl/"+g.opts.Instance)-u0)
			times[name] = append(times[name], [3]time.Duration{b.Sub(a), cc.Sub(b), d.Sub(cc)})
			w, _ := tk.Wait(raw.ctx)
			tk.Kill(raw.ctx, unix.SIGKILL)
			<-w
			tk.Delete(raw.ctx)
			c.Delete(raw.ctx, client.WithSnapshotCleanup)
		}
	}
	var names []string
	for k := range times {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		var m [4][]time.Duration
		for _, x := range times[k] {
			for i := range 3 {
				m[i] = append(m[i], x[i])
			}
			m[3] = append(m[3], x[0]+x[1]+x[2])
		}
		t.Logf("ZZ %-12s container %.1f task %.1f start %.1f total %.1f  min %.1f CPU %.1f", k, ms(median(m[0])), ms(median(m[1])), ms(median(m[2])), ms(median(m[3])), ms(m[3][0]), ms(median(cpu[k])))
	}
}
