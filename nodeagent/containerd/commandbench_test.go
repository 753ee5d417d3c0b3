package containerd

import (
	"context"
	"io"
	"os/exec"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/pawl-project/pawl/nodeagent"
)

// BenchmarkExec measures a command that does nothing, beside the same by ctr and
// by containerd's library alone, in turns, as machines are noisy.
func BenchmarkExec(b *testing.B) {
	g := newRig(b)
	_, id := g.running("bench")
	raw, err := client.New(g.opts.Address)
	if err != nil {
		b.Fatal(err)
	}
	defer raw.Close()
	var ours, ctr, library []time.Duration
	for b.Loop() {
		began := time.Now()
		if code, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: []string{"true"}, Stdout: io.Discard, Stderr: io.Discard}); err != nil || code != 0 {
			b.Fatal(code, err)
		}
		ours = append(ours, time.Since(began))

		began = time.Now()
		if out, err := exec.Command("ctr", "--address", g.opts.Address, "--namespace", namespace, "tasks", "exec", "--exec-id", "bench", id, "true").CombinedOutput(); err != nil {
			b.Fatalf("ctr: %v: %s", err, out)
		}
		ctr = append(ctr, time.Since(began))

		began = time.Now()
		execByLibrary(b, raw, id)
		library = append(library, time.Since(began))
	}
	b.ReportMetric(ms(median(ours)), "ms/exec")
	b.ReportMetric(ms(median(ctr)), "ms/ctr")
	b.ReportMetric(ms(median(library)), "ms/library")
}

func execByLibrary(b *testing.B, c *client.Client, id string) {
	b.Helper()
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	container, err := c.LoadContainer(ctx, id)
	must(err)
	spec, err := container.Spec(ctx)
	must(err)
	task, err := container.Task(ctx, nil)
	must(err)
	spec.Process.Args = []string{"true"}
	p, err := task.Exec(ctx, "library", spec.Process, cio.NewCreator(cio.WithStreams(nil, io.Discard, io.Discard), cio.WithFIFODir(b.TempDir())))
	must(err)
	done, err := p.Wait(ctx)
	must(err)
	must(p.Start(ctx))
	<-done
	_, err = p.Delete(ctx)
	must(err)
}
