package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func lines(text ...string) func(kv.StreamRequest, nodeSide) error {
	return func(_ kv.StreamRequest, n nodeSide) error {
		for _, line := range text {
			if err := n.write(kv.ChannelStdout, line); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestLog(t *testing.T) {
	g := newRig(t, lines("one\n", "two\n"))
	answer := g.get(t.Context(), "")
	text, err := io.ReadAll(answer.body)
	if err != nil || string(text) != "one\ntwo\n" || answer.code != 200 || answer.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%d %q %v", answer.code, text, err)
	}
}

func TestLogOptionsReachTheNode(t *testing.T) {
	var got kv.StreamRequest
	g := newRig(t, func(r kv.StreamRequest, n nodeSide) error {
		got = r
		return nil
	})
	since := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	for query, want := range map[string]*corev1.PodLogOptions{
		"": {Container: "main"},
		"follow=true&previous=1&timestamps&tailLines=0&limitBytes=5&sinceSeconds=7&container=main&insecureSkipTLSVerifyBackend=true": {
			Container: "main", Follow: true, Previous: true, Timestamps: true, TailLines: ptr.To[int64](0), LimitBytes: ptr.To[int64](5), SinceSeconds: ptr.To[int64](7), InsecureSkipTLSVerifyBackend: true,
		},
		"follow=false&previous=0&sinceTime=2026-11-21T08:00:00Z&stream=Stderr": {Container: "main", SinceTime: &metav1.Time{Time: since}, Stream: ptr.To("Stderr")},
	} {
		answer := g.get(t.Context(), query)
		if _, err := io.ReadAll(answer.body); err != nil || answer.code != 200 {
			t.Errorf("%s: %d %v", query, answer.code, err)
		}
		g.node.running.Wait()
		if diff := cmp.Diff(want, got.Log); diff != "" || got.Verb != kv.StreamLog || got.Container != "main" {
			t.Errorf("%s: %+v\n%s", query, got, diff)
		}
	}
}

func TestLogRefused(t *testing.T) {
	two := func(g *rig) {
		g.pod.Spec.Containers = []corev1.Container{{Name: "a"}, {Name: "b"}}
	}
	three := func(g *rig) {
		two(g)
		g.pod.Spec.InitContainers = []corev1.Container{{Name: "i"}}
	}
	for _, c := range []struct {
		query   string
		change  func(*rig)
		code    int
		message string
	}{
		{"container=x", nil, 400, "container x is not valid for pod web"},
		{"", two, 400, "a container name must be specified for pod web, choose one of: [a b]"},
		{"", three, 400, "a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i]"},
		{"tailLines=x", nil, 400, `strconv.ParseInt: parsing "x": invalid syntax`},
		{"tailLines=-1", nil, 422, `PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"limitBytes=0", nil, 422, `PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0`},
		{"sinceSeconds=0", nil, 422, `PodLogOptions "web" is invalid: sinceSeconds: Invalid value: 0: must be greater than 0`},
		{"sinceSeconds=1&sinceTime=2026-11-21T08:00:00Z", nil, 422, "PodLogOptions \"web\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"},
		{"sinceTime=yesterday", nil, 400, `parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"stream=Both", nil, 422, `PodLogOptions "web" is invalid: stream: Unsupported value: "Both": supported values: "All", "Stderr", "Stdout"`},
		{"", func(g *rig) { g.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other"}} }, 404, `pods "web" not found`},
		{"", func(g *rig) {
			g.node.refuse = kv.StreamErrorf(schema.ErrRefused, `container "main" in pod "web" is waiting to start: ContainerCreating`)
		}, 400, `container "main" in pod "web" is waiting to start: ContainerCreating`},
		{"", func(g *rig) { g.node.refuse = kv.StreamErrorf(schema.ErrUnavailable, "node n1 is not connected") }, 503, "node n1 is not connected"},
		{"", func(g *rig) {
			g.node.refuse = kv.StreamErrorf(schema.ErrNotFound, `previous terminated container "main" in pod "web" not found`)
		}, 404, `previous terminated container "main" in pod "web" not found`},
		{"", func(g *rig) { g.node.refuse = errors.New("a bug") }, 500, "Internal error occurred: a bug"},
		// Accepted, and then an error before the first byte is an answer, too.
		{"follow=true", func(g *rig) {
			g.node.handle = func(kv.StreamRequest, nodeSide) error {
				return kv.StreamErrorf(schema.ErrUnavailable, "node n1 was lost")
			}
		}, 503, "node n1 was lost"},
	} {
		g := newRig(t, lines("never read"))
		if c.change != nil {
			c.change(g)
		}
		answer := g.get(t.Context(), c.query)
		if s := status(t, answer); int(s.Code) != c.code || s.Message != c.message {
			t.Errorf("%s: %d %q, want %d %q", c.query, s.Code, s.Message, c.code, c.message)
		}
	}
}

// As in Kubernetes, the log of a pod that is on no node is there and empty.
func TestLogOfPodOnNoNode(t *testing.T) {
	g := newRig(t, lines("not asked"))
	g.pod.Spec.NodeName = ""
	answer := g.get(t.Context(), "follow=true")
	if text, err := io.ReadAll(answer.body); err != nil || len(text) > 0 || answer.code != 200 {
		t.Errorf("%d %q %v", answer.code, text, err)
	}
}

// A follower sees each line at once, and first of all that it is being served.
func TestFollow(t *testing.T) {
	more := make(chan string)
	g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
		for line := range more {
			if err := n.write(kv.ChannelStdout, line); err != nil {
				return err
			}
		}
		return nil
	})
	answer := g.get(t.Context(), "follow=true") // returns before there is a line
	for i := range 3 {
		line := fmt.Sprintf("line %d\n", i)
		more <- line
		got := make([]byte, len(line))
		if _, err := io.ReadFull(answer.body, got); err != nil || string(got) != line {
			t.Fatalf("%q %v", got, err)
		}
	}
	close(more)
	if rest, err := io.ReadAll(answer.body); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
}

func TestFollowerGone(t *testing.T) {
	ended := make(chan struct{})
	g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
		<-n.ctx.Done()
		close(ended)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	answer := g.get(ctx, "follow=true")
	if n := g.streams.Counts().LogsOpen; n != 1 {
		t.Errorf("%d are open", n)
	}
	cancel()
	answer.body.Close()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		t.Error("the log is still being read")
	}
}

// A log that breaks off does not look like one that has ended.
func TestLogBreaksOff(t *testing.T) {
	for _, query := range []string{"", "follow=true"} {
		g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
			_ = n.write(kv.ChannelStdout, "begun\n")
			return kv.StreamErrorf(schema.ErrUnavailable, "node n1 was lost")
		})
		answer := g.get(t.Context(), query)
		text, err := io.ReadAll(answer.body)
		if err == nil || string(text) != "begun\n" {
			t.Errorf("%q, %v", text, err)
		}
	}
}

// A reader that does not read holds the node back.
func TestSlowReaderOfALog(t *testing.T) {
	var sent atomic.Int64
	const all = 96 << 20
	part := strings.Repeat("x", 32<<10)
	g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
		for range all / len(part) {
			if err := n.write(kv.ChannelStdout, part); err != nil {
				return err
			}
			sent.Add(int64(len(part)))
		}
		return nil
	})
	answer := g.get(t.Context(), "follow=true")
	var before int64 = -1
	eventually(t, "the log is held back", func() bool {
		time.Sleep(50 * time.Millisecond)
		now := sent.Load()
		still := now > 0 && now == before
		before = now
		return still
	})
	if n := sent.Load(); n > all/2 {
		t.Errorf("%d bytes of the log were taken that nobody reads", n)
	}
	if n, err := io.Copy(io.Discard, answer.body); n != all || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestTooManyStreams(t *testing.T) {
	g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
		<-n.ctx.Done()
		return nil
	})
	g.streams.o.Most = 2
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		g.get(ctx, "follow=true")
	}
	answer := g.get(t.Context(), "")
	if s := status(t, answer); s.Code != 429 || answer.header.Get("Retry-After") != "1" {
		t.Errorf("%+v", s)
	}
	cancel()
	eventually(t, "the streams have ended", func() bool { return g.streams.Counts().LogsOpen == 0 })
	if c := g.streams.Counts(); c.LogsTotal != 2 || c.LogsRefused != 1 {
		t.Errorf("%+v", c)
	}
}

// TestViewersShareOfStreams: viewers who hold all the logs they may leave room
// for others.
func TestViewersShareOfStreams(t *testing.T) {
	g := newRig(t, func(_ kv.StreamRequest, n nodeSide) error {
		<-n.ctx.Done()
		return nil
	})
	g.streams.o.Most, g.user = 2*viewersShare, access.User{Name: "eve", Role: access.View}
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		g.get(ctx, "follow=true")
	}
	if s := status(t, g.get(t.Context(), "follow=true")); s.Code != 429 {
		t.Errorf("%+v", s)
	}
	g.user.Role = access.Admin
	g.get(ctx, "follow=true")
	cancel()
	eventually(t, "the streams have ended", func() bool { return g.streams.Counts().LogsOpen == 0 })
	if n := g.streams.viewed.Load(); n != 0 {
		t.Errorf("%d logs of viewers are still counted", n)
	}
}

// BenchmarkLog reads a log of 1 GiB; heap-MiB is the most that the process held.
func BenchmarkLog(b *testing.B) {
	for _, query := range []string{"", "follow=true"} {
		b.Run(query, func(b *testing.B) {
			const all = 1 << 30
			part := bytes.Repeat([]byte("x"), 32<<10)
			g := newRig(b, func(_ kv.StreamRequest, n nodeSide) error {
				for range all / len(part) {
					if err := n.put(n.ctx, n.up, frame{kv.ChannelStdout, part}); err != nil {
						return err
					}
				}
				return nil
			})
			b.SetBytes(all)
			var most uint64
			for b.Loop() {
				answer := g.get(b.Context(), query)
				buffer, total := make([]byte, 256<<10), 0
				for {
					n, err := answer.body.Read(buffer)
					if total += n; total>>26 != (total-n)>>26 {
						var m runtime.MemStats
						runtime.ReadMemStats(&m)
						most = max(most, m.HeapInuse)
					}
					if err != nil {
						break
					}
				}
				if total != all {
					b.Fatalf("%d bytes", total)
				}
			}
			b.ReportMetric(float64(most)/(1<<20), "heap-MiB")
		})
	}
}
