package containerd

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// soon is far less than a shim waits for a reader that never comes.
const soon = 10 * time.Second

// An agent that is killed while a shim starts a command leaves the shim waiting;
// the next one frees it and runs commands of its own.
func TestKilledWhileACommandStarts(t *testing.T) {
	g := newRig(t)
	p, id := g.running("shell")
	g.leaveStarting(id)
	g.reopen()
	began := time.Now()
	var out bytes.Buffer
	code, err := g.rt.Command(g.ctx, id, nodeagent.Command{Argv: sh("echo well"), Stdout: &out})
	if err != nil || code != 0 || out.String() != "well\n" {
		t.Errorf("afterwards: exit code %d, %q, %v", code, out.String(), err)
	}
	eventually(t, "nothing is left of the command", func() bool { return len(g.execFIFOs(p)) == 0 && len(g.commandsIn(id)) == 0 })
	if took := time.Since(began); took > soon {
		t.Errorf("it took %v", took)
	}
}

// leaveStarting has the shim start a command whose output nobody opens.
func (g *rig) leaveStarting(id string) {
	g.tb.Helper()
	x, err := g.rt.newExecution(g.ctx, id, nodeagent.Command{Argv: sh("sleep 6004")})
	if err != nil {
		g.tb.Fatal(err)
	}
	process, err := x.process(g.ctx)
	if err != nil {
		g.tb.Fatal(err)
	}
	request := &tasks.ExecProcessRequest{ContainerID: id, ExecID: x.exec, Spec: process}
	if err := x.open(request); err != nil {
		g.tb.Fatal(err)
	}
	x.close()
	if _, err := g.rt.client.TaskService().Exec(g.ctx, request); err != nil {
		g.tb.Fatal(err)
	}
	g.begin(func(ctx context.Context) error {
		_, err := g.rt.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id, ExecID: x.exec})
		return err
	}, func() bool { return len(g.commandsIn(id)) > 0 })
}

// begin makes a call and calls it off once it has had its effect.
func (g *rig) begin(call func(context.Context) error, effect func() bool) {
	g.tb.Helper()
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	defer func() { cancel(); <-done }()
	for limit := time.Now().Add(patience); !effect(); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-done:
			done <- err
			g.tb.Fatalf("it did not wait: %v", err)
		default:
		}
		if time.Now().After(limit) {
			g.tb.Fatal("it has no effect")
		}
	}
}

// The same while a shim makes a container: it is cut off, and started anew,
// and the pod's other container goes on.
func TestKilledWhileAContainerIsMade(t *testing.T) {
	g := newRig(t)
	p := g.pod("two")
	p.add("a", "sleep", "1000")
	p.add("b", "sleep", "1000")
	p.sandbox()
	a := p.start("a", 0)
	pid := g.pidOf(a.ID)
	g.leaveMaking(p, "b")
	g.reopen()
	began := time.Now()
	s := p.look()
	if len(s.Containers) != 2 || s.Containers[0].State != pod.ContainerRunning || s.Containers[1].State != pod.ContainerCreated {
		t.Fatalf("seen %+v", s.Containers)
	}
	b, err := p.rt.Start(p.ctx, p.request("b", 0))
	for errors.Is(err, schema.ErrUnavailable) && time.Since(began) < soon { // containerd is still clearing away
		b, err = p.rt.Start(p.ctx, p.request("b", 0))
	}
	if err != nil || b.State != pod.ContainerRunning {
		t.Errorf("started anew: %+v, %v", b, err)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("it took %v", took)
	}
	if now := g.pidOf(a.ID); now != pid {
		t.Errorf("process %d is now %d", pid, now)
	}
	p.remove()
}

// leaveMaking has the shim make a container whose output nobody opens.
func (g *rig) leaveMaking(p *testPod, name string) {
	g.tb.Helper()
	q := p.request(name, 0)
	sandbox, err := g.rt.sandbox(p.UID)
	if err != nil {
		g.tb.Fatal(err)
	}
	image, err := g.rt.images.startable(g.ctx, q.Image)
	if err != nil {
		g.tb.Fatal(err)
	}
	rec, mounts, err := g.rt.create(g.ctx, q, image, sandbox)
	if err != nil {
		g.tb.Fatal(err)
	}
	g.begin(func(ctx context.Context) error { return g.rt.createTask(ctx, rec, mounts) },
		func() bool { return g.rt.runcPID(rec.ID) != 0 })
}
