package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// testLog is passed by a runtime that is a Streamer; others have no logs.
func testLog(t *testing.T, b *bench) {
	rt, ok := b.rt.(nodeagent.Streamer)
	if !ok {
		return
	}
	read := func(id string, o corev1.PodLogOptions) string {
		t.Helper()
		l, err := rt.OpenLog(b.ctx, id, &o)
		if err != nil {
			t.Fatalf("OpenLog: %v", err)
		}
		var out strings.Builder
		if err := errors.Join(l.Copy(b.ctx, &out), l.Close()); err != nil {
			t.Errorf("Copy: %v", err)
		}
		return out.String()
	}
	b.add("web", Speaks)
	b.sandbox()
	c := b.start("web", 0)
	const all = "one\ntwo\nthree"
	if got := read(c.ID, corev1.PodLogOptions{Follow: true}); got != all {
		t.Errorf("followed: %q", got)
	}
	b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	if got := read(c.ID, corev1.PodLogOptions{}); got != all {
		t.Errorf("afterwards: %q", got)
	}
	if got := read(c.ID, corev1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](2)}); got != "two\nthree" {
		t.Errorf("followed when it had ended: %q", got)
	}
	b.must(b.rt.Remove(b.ctx, c.ID, true))
	if _, err := rt.OpenLog(b.ctx, c.ID, &corev1.PodLogOptions{}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("the log of a container that was removed: %v, want ErrNotFound", err)
	}
}

// testCommand is passed by a runtime that is a Streamer; others run no commands.
func testCommand(t *testing.T, b *bench) {
	rt, ok := b.rt.(nodeagent.Streamer)
	if !ok {
		return
	}
	b.add("web", HonoursTERM)
	b.sandbox()
	c := b.start("web", 0, "GREETING=hello")
	var out, errs bytes.Buffer
	text := "some input"
	code, err := rt.Command(b.ctx, c.ID, nodeagent.Command{
		Argv:   []string{"/bin/sh", "-c", "cat; echo $GREETING >&2; exit 7"},
		Stdout: &out, Stderr: &errs,
		Stdin: func(context.Context) ([]byte, error) {
			p := text
			if text = ""; p == "" {
				return nil, io.EOF
			}
			return []byte(p), nil
		},
	})
	if err != nil || code != 7 || out.String() != "some input" || errs.String() != "hello\n" {
		t.Errorf("exit code %d, output %q, errors %q: %v", code, out.String(), errs.String(), err)
	}
	var e *nodeagent.CommandError
	if _, err := rt.Command(b.ctx, c.ID, nodeagent.Command{Argv: Missing}); !errors.As(err, &e) || e.Code != 127 || e.Text == "" {
		t.Errorf("a command that is not there: %v", err)
	}
	for _, tty := range []bool{false, true} {
		ctx, cancel := context.WithCancel(b.ctx)
		_, err := rt.Command(ctx, c.ID, nodeagent.Command{
			Argv: []string{"/bin/sh", "-c", "echo up; exec sleep 100000"}, TTY: tty, Stdout: ender(cancel),
		})
		if err == nil {
			t.Errorf("tty %v: a command whose client went ended well", tty)
		}
	}
	b.must(b.rt.Signal(b.ctx, c.ID, "KILL", b.look().Containers[0].StartedAt))
	b.await("it exited", func(s pod.Seen) bool { return count(s, pod.ContainerExited) == 1 })
	if _, err := rt.Command(b.ctx, c.ID, nodeagent.Command{Argv: []string{"true"}}); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("a command in a container that has ended: %v, want ErrNotFound", err)
	}
}

// ender ends something at the first output.
type ender func()

func (e ender) Write(p []byte) (int, error) { e(); return len(p), nil }
