package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// followed reads a container's log until it ends.
func (g *rig) followed(ctx context.Context, id string, w io.Writer) error {
	l, err := g.rt.OpenLog(ctx, id, &corev1.PodLogOptions{Follow: true})
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Copy(ctx, w)
}

// Whoever follows a container that writes fast sees all of it over the log's
// rotations, several at once, and ends with it.
func TestFollowARunningContainer(t *testing.T) {
	g := newRig(t)
	p := g.pod("chatty")
	const n = 300_000
	p.add("main", "sh", "-c", fmt.Sprintf("sleep 0.3; seq %d | sed 's/$/ is a line of a log that goes on and on and on and on and on and on/'", n))
	p.sandbox()
	c := p.start("main", 0)
	before := g.counts()
	var wg sync.WaitGroup
	outs := make([]bytes.Buffer, 3)
	for i := range outs {
		wg.Go(func() {
			if err := g.followed(g.ctx, c.ID, &outs[i]); err != nil {
				t.Errorf("follower %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i := range outs {
		if lines := strings.Count(outs[i].String(), "\n"); lines != n {
			t.Errorf("follower %d saw %d lines", i, lines)
		}
		if !strings.Contains(outs[i].String(), fmt.Sprintf("\n%d is a line", n)) {
			t.Errorf("follower %d did not see the last line", i)
		}
	}
	p.exit()
	delete(before, "data files") // the log grew
	before["threads"] += 6
	g.asBefore(t, before)
}

// A line arrives when it is written, and not when somebody looks.
func TestFollowIsPrompt(t *testing.T) {
	g := newRig(t)
	p := g.pod("prompt")
	p.add("main", "sh", "-c", "while :; do date +%s%N; sleep 0.05; done")
	p.sandbox()
	c := p.start("main", 0)
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	pr, pw := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { pw.CloseWithError(g.followed(ctx, c.ID, pw)) })
	buffer := make([]byte, 4<<10)
	for range 20 {
		if _, err := pr.Read(buffer); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	cancel()
	io.Copy(io.Discard, pr) //nolint:errcheck // it ends with the follower, who may be amid a line
	wg.Wait()
	if d := time.Since(began); d > soon {
		t.Errorf("the follower went after %v", d)
	}
}

// A follower is told when the agent stops: the container goes on.
func TestFollowEndsWithTheAgent(t *testing.T) {
	g := newRig(t)
	_, id := g.running("quiet")
	var wg sync.WaitGroup
	begun := make(chan struct{})
	wg.Go(func() {
		l, err := g.rt.OpenLog(g.ctx, id, &corev1.PodLogOptions{Follow: true})
		close(begun)
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		if err := l.Copy(g.ctx, io.Discard); !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("Copy: %v", err)
		}
	})
	<-begun
	g.shut()
	wg.Wait()
	g.open()
	l, err := g.rt.OpenLog(g.ctx, id, &corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	short, cancel := context.WithTimeout(g.ctx, 300*time.Millisecond)
	defer cancel()
	if err := l.Copy(short, io.Discard); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the next agent's follower: %v", err)
	}
}
