package containerd

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sys/unix"
)

func usage(dirs ...string) time.Duration {
	var sum int64
	for _, d := range dirs {
		b, _ := os.ReadFile("/sys/fs/cgroup/cpuacct/" + d + "/cpuacct.usage")
		n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		sum += n
	}
	return time.Duration(sum)
}

func TestZZ2(t *testing.T) {
	g := newRig(t)
	g.image("busybox:1.37")
	raw := newRawClient(t)
	own := func() time.Duration {
		var r unix.Rusage
		unix.Getrusage(0, &r)
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	const n = 20
	for round := range 2 {
		var pods []*testPod
		a, o := usage("pcbench", "pawl/"+g.opts.Instance), own()
		for i := range n {
			p := g.pod(fmt.Sprint("x", round, i))
			p.add("main", "sleep", "1000000")
			p.sandbox()
			p.start("main", 0)
			pods = append(pods, p)
		}
		b, o2 := usage("pcbench", "pawl/"+g.opts.Instance), own()
		t.Logf("ZZ ours %.1f ms cpu per start, own process %.1f", ms((b-a)/n), ms((o2-o)/n))
		for _, p := range pods {
			p.remove()
		}
		a, o = usage("pcbench", "pawl/"+g.opts.Instance), own()
		t.Logf("ZZ remove ours %.1f own %.1f", ms((a-b)/n), ms((o-o2)/n))
		var rm []func()
		a, o = usage("pcbench", "pawl/"+g.opts.Instance), own()
		for i := range n {
			id := fmt.Sprintf("raww-%d-%d-%d", unix.Getpid(), round, i)
			c, err := raw.NewContainer(raw.ctx, id, client.WithImage(raw.image), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, raw.image),
				client.WithNewSpec(oci.WithImageConfigArgs(raw.image, []string{"sleep", "1000000"}), oci.WithCgroup("/pawl/"+g.opts.Instance+"/"+id)))
			if err != nil {
				t.Fatal(err)
			}
			tk, err := c.NewTask(raw.ctx, cio.NullIO)
			if err != nil {
				t.Fatal(err)
			}
			tk.Start(raw.ctx)
			rm = append(rm, func() {
				w, _ := tk.Wait(raw.ctx)
				tk.Kill(raw.ctx, unix.SIGKILL)
				<-w
				tk.Delete(context.Background())
				c.Delete(raw.ctx, client.WithSnapshotCleanup)
			})
		}
		b, o2 = usage("pcbench", "pawl/"+g.opts.Instance), own()
		t.Logf("ZZ raw %.1f ms cpu per start, own process %.1f", ms((b-a)/n), ms((o2-o)/n))
		for _, f := range rm {
			f()
		}
		a, o = usage("pcbench", "pawl/"+g.opts.Instance), own()
		t.Logf("ZZ remove raw %.1f own %.1f", ms((a-b)/n), ms((o-o2)/n))
	}
}
