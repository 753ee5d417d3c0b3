package containerd

import (
	"fmt"
	"sort"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
)

func TestZZ3(t *testing.T) {
	g := newRig(t)
	g.image("busybox:1.37")
	raw := newRawClient(t)
	ph := map[string][]time.Duration{}
	for i := range 25 {
		p := g.pod(fmt.Sprint("x", i))
		p.add("main", "sleep", "1000000")
		last := time.Now()
		all := last
		mark := func(s string) { n := time.Now(); ph[s] = append(ph[s], n.Sub(last)); last = n }
		p.sandbox()
		mark("1 sandbox")
		q := p.request("main", 0)
		mark("2 image")
		r := g.rt
		sb, _ := r.sandbox(p.UID)
		img, err := r.images.startable(g.ctx, q.Image)
		if err != nil {
			t.Fatal(err)
		}
		mark("3 find")
		rec, mounts, err := r.create(g.ctx, q, img, sb, r.containerID(p.UID, "main", 0))
		if err != nil {
			t.Fatal(err)
		}
		mark("4 create+prepare")
		l, err := r.openLog(rec)
		mark("5 openlog")
		if err := r.createTask(g.ctx, rec, mounts); err != nil {
			t.Fatal(err)
		}
		mark("6 createTask")
		r.read(rec.ID, l)
		l.writer.markStarted()
		mark("7 read")
		_, err = r.client.TaskService().Start(g.ctx, &tasks.StartRequest{ContainerID: rec.ID})
		mark("8 start")
		ph["9 total"] = append(ph["9 total"], time.Since(all))
		last = time.Now()
		g.rt.Signal(g.ctx, rec.ID, "KILL", time.Now())
		mark("A1 signal")
		p.exit()
		mark("A2 exit")
		g.rt.Remove(g.ctx, rec.ID, true)
		mark("A3 remove")
		g.rt.RemoveSandbox(g.ctx, p.UID)
		mark("A4 removesandbox")
		last = time.Now()
		rm := raw.start(t)
		mark("B raw")
		rm()
		mark("C raw remove")
	}
	var names []string
	for k := range ph {
		names = append(names, k)
	}
	sort.Strings(names)
	for _, k := range names {
		t.Logf("ZZ %s %.2f  min %.2f", k, ms(median(ph[k])), ms(ph[k][0]))
	}
}
