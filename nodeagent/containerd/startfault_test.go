package containerd

import (
	"errors"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// What runc says of a container is its fault and stays; what it could not say,
// or says of a start that was cut off, is tried again.
func TestStartFaults(t *testing.T) {
	for text, want := range map[string]string{
		`OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope": no such file: unknown`:                                                                        `exec: "/nope": no such file`,
		`failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): runc did not terminate successfully: exit status 1`: "",
		`OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): exec: "runc": executable file not found in $PATH: unknown`:                      "",
		`OCI runtime create failed: container with given ID already exists: unknown`:                                                                                                                    "",
		`OCI runtime start failed: signal: killed: unknown`: "",
		`ttrpc: closed`: "",
	} {
		if got, ok := startFault(errors.New(text)); got != want || ok != (want != "") {
			t.Errorf("%s\nis %q, %v; want %q", text, got, ok, want)
		}
	}
}

// A fault right after a start that was cut off is not taken for the manifest's;
// what is not cleared away any more is.
func TestFaultAfterACutOffStart(t *testing.T) {
	g := newRig(t)
	p := g.pod("cut")
	p.add("main", "/nope")
	p.sandbox()
	cutOffStart(t, p, false)
	if c := p.look().Containers[0]; c.State != pod.ContainerCreated {
		t.Fatalf("seen %+v", c)
	}
	id := g.rt.containerID(p.UID, "main", 0)
	if err := g.rt.Remove(g.ctx, id, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := g.rt.Start(g.ctx, p.request("main", 0)); !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("started %+v, %v", c, err)
		}
	}
	if left := p.look().Containers; len(left) > 0 {
		t.Errorf("left %+v", left)
	}
	g.rt.mu.Lock()
	g.rt.cutOff[id] = cutOff{p.UID, time.Now().Add(-cutOffWithin)}
	g.rt.mu.Unlock()
	if c := p.start("main", 0); c.StartError == "" || c.State != pod.ContainerExited {
		t.Errorf("started %+v", c)
	}
	p.remove()
	if len(g.rt.cutOff) > 0 {
		t.Errorf("remembered for ever: %v", g.rt.cutOff)
	}
}
