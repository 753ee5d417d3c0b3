package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema/kv"
)

// A writtenLog is a log of a container that only its Runtime knows.
type writtenLog struct {
	t    testing.TB
	r    *Runtime
	path string
	live *containerLog
}

func newWrittenLog(t testing.TB) *writtenLog {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	w, err := openLogWriter(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g := &writtenLog{t: t, path: path, live: &containerLog{writer: w, done: make(chan struct{})}}
	g.r = &Runtime{loaded: true, records: map[string]*record{}, logs: map[string]*containerLog{"c": g.live}, log: slog.New(slog.DiscardHandler)}
	rec := &record{ended: true} // so that no containerd is asked
	rec.ID, rec.LogPath = "c", path
	g.r.records["c"] = rec
	g.r.life, g.r.end = context.WithCancel(context.Background())
	t.Cleanup(w.close)
	return g
}

// at is the time of the nth line.
func at(n int) time.Time { return time.Date(2026, 1, 2, 3, 4, 5, n, time.UTC) }

// line writes one line of either stream.
func (g *writtenLog) line(n int, stream, text string) {
	s := lines{name: stream}
	g.live.writer.write(func(b *bytes.Buffer) { s.format(b, []byte(text+"\n"), at(n)) })
}

func (g *writtenLog) rotate() {
	g.t.Helper()
	g.live.writer.mu.Lock()
	defer g.live.writer.mu.Unlock()
	if err := g.live.writer.rotate(); err != nil {
		g.t.Fatal(err)
	}
}

func (g *writtenLog) read(o corev1.PodLogOptions) string {
	g.t.Helper()
	var b strings.Builder
	g.copyTo(g.t.Context(), o, &b)
	return b.String()
}

func (g *writtenLog) copyTo(ctx context.Context, o corev1.PodLogOptions, w io.Writer) {
	g.t.Helper()
	l, err := g.r.OpenLog(ctx, "c", &o)
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Copy(ctx, w); err != nil {
		g.t.Errorf("Copy: %v", err)
	}
}

func TestReadLogOptions(t *testing.T) {
	g := newWrittenLog(t)
	long := strings.Repeat("x", 40_000)
	g.line(1, "stdout", "one")
	g.line(2, "stderr", "two")
	g.rotate()
	g.line(3, "stdout", long)
	g.rotate()
	g.line(4, "stdout", "four")
	g.line(5, "stdout", "")
	g.line(6, "stderr", "six")
	const stamp = "2026-01-02T03:04:05.00000000%dZ %s\n"
	all := "one\ntwo\n" + long + "\nfour\n\nsix\n"
	for name, c := range map[string]struct {
		o    corev1.PodLogOptions
		want string
	}{
		"all":           {corev1.PodLogOptions{}, all},
		"tail 0":        {corev1.PodLogOptions{TailLines: ptr.To[int64](0)}, ""},
		"tail 1":        {corev1.PodLogOptions{TailLines: ptr.To[int64](1)}, "six\n"},
		"tail 2":        {corev1.PodLogOptions{TailLines: ptr.To[int64](2)}, "\nsix\n"},
		"tail 3":        {corev1.PodLogOptions{TailLines: ptr.To[int64](3)}, "four\n\nsix\n"},
		"tail 4":        {corev1.PodLogOptions{TailLines: ptr.To[int64](4)}, long + "\nfour\n\nsix\n"},
		"tail 5":        {corev1.PodLogOptions{TailLines: ptr.To[int64](5)}, "two\n" + long + "\nfour\n\nsix\n"},
		"tail 6":        {corev1.PodLogOptions{TailLines: ptr.To[int64](6)}, all},
		"tail 100":      {corev1.PodLogOptions{TailLines: ptr.To[int64](100)}, all},
		"limit":         {corev1.PodLogOptions{LimitBytes: ptr.To[int64](6)}, "one\ntw"},
		"limit, tail":   {corev1.PodLogOptions{LimitBytes: ptr.To[int64](2), TailLines: ptr.To[int64](1)}, "si"},
		"since":         {corev1.PodLogOptions{SinceTime: &metav1.Time{Time: at(4)}}, "four\n\nsix\n"},
		"since seconds": {corev1.PodLogOptions{SinceSeconds: ptr.To[int64](10)}, ""},
		"timestamps":    {corev1.PodLogOptions{Timestamps: true, TailLines: ptr.To[int64](4)}, fmt.Sprintf(stamp, 3, long) + fmt.Sprintf(stamp, 4, "four") + fmt.Sprintf(stamp, 5, "") + fmt.Sprintf(stamp, 6, "six")},
		"stderr":        {corev1.PodLogOptions{Stream: ptr.To(corev1.LogStreamStderr)}, "two\nsix\n"},
		"stdout":        {corev1.PodLogOptions{Stream: ptr.To(corev1.LogStreamStdout), LimitBytes: ptr.To[int64](5)}, "one\nx"},
	} {
		if got := g.read(c.o); got != c.want {
			t.Errorf("%s: got %d bytes %.60q, want %d bytes %.60q", name, len(got), got, len(c.want), c.want)
		}
	}
}

// What is no record, or only half of one, is passed over; a part without its
// end has no line's end.
func TestReadSpoiltLog(t *testing.T) {
	g := newWrittenLog(t)
	text := "nonsense\n\n2026-01-02T03:04:05.000000001Z stdout F good\n2026-01-02T03:04:05.000000001Z stdlog F bad\n" +
		strings.Repeat("y", 300_000) + "\n2026-01-02T03:04:05.000000001Z stderr P the "
	if err := os.WriteFile(g.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := g.read(corev1.PodLogOptions{}); got != "good\nthe " {
		t.Errorf("got %q", got)
	}
	if err := os.Remove(g.path); err != nil {
		t.Fatal(err)
	}
	if got := g.read(corev1.PodLogOptions{}); got != "" {
		t.Errorf("without a file: %q", got)
	}
}

// The last lines of random logs are those that all lines end with.
func TestTailFindsTheLastLines(t *testing.T) {
	for seed := range uint64(30) {
		g := newWrittenLog(t)
		random := rand.New(rand.NewPCG(seed, 1))
		var want []string
		for n := range 40 {
			size := random.IntN(80)
			if random.IntN(6) == 0 {
				size = random.IntN(90_000)
			}
			text := fmt.Sprint(n) + strings.Repeat("z", size)
			g.line(n, "stdout", text)
			want = append(want, text+"\n")
			if random.IntN(10) == 0 {
				g.rotate()
			}
		}
		kept := g.read(corev1.PodLogOptions{})
		for tail := range 45 {
			expected := strings.Join(want[max(0, len(want)-tail):], "")
			if len(expected) > len(kept) {
				expected = kept // the oldest files are gone
			}
			if got := g.read(corev1.PodLogOptions{TailLines: ptr.To(int64(tail))}); got != expected {
				t.Fatalf("seed %d: tail %d: got %d bytes, want %d", seed, tail, len(got), len(expected))
			}
		}
	}
}

// A follower sees every line once, over rotations, and ends with the container.
func TestFollowLog(t *testing.T) {
	g := newWrittenLog(t)
	g.line(0, "stdout", "line 0")
	var wg sync.WaitGroup
	pr, pw := io.Pipe()
	wg.Go(func() {
		defer pw.Close()
		g.follow(t.Context(), corev1.PodLogOptions{Follow: true}, pw)
	})
	var got strings.Builder
	first := make([]byte, len("line 0\n"))
	if _, err := io.ReadFull(pr, first); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() { io.Copy(&got, pr) })
	var want strings.Builder
	for n := 1; n <= 20_000; n++ {
		text := fmt.Sprintf("line %d", n)
		g.line(n, "stdout", text)
		want.WriteString(text + "\n")
		if n%6000 == 0 {
			g.rotate()
		}
	}
	g.live.writer.close()
	close(g.live.done)
	wg.Wait()
	if got.String() != want.String() {
		t.Errorf("followed %d bytes, written %d", got.Len(), want.Len())
	}
	if n := len(g.live.writer.followers); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

// follow reads as OpenLog does of a container that runs.
func (g *writtenLog) follow(ctx context.Context, o corev1.PodLogOptions, w io.Writer) {
	l := &logReader{r: g.r, path: g.path, lines: filterOf(&o, time.Now()), live: g.live, wake: g.live.writer.subscribe()}
	defer l.Close()
	if err := l.open(); err != nil {
		g.t.Error(err)
	}
	if err := l.Copy(ctx, w); err != nil && ctx.Err() == nil {
		g.t.Errorf("Copy: %v", err)
	}
}

// A follower of a quiet log ends at once with its context.
func TestFollowEndsWithItsReader(t *testing.T) {
	g := newWrittenLog(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.follow(ctx, corev1.PodLogOptions{Follow: true}, io.Discard) })
	cancel()
	wg.Wait()
}

func BenchmarkReadLog(b *testing.B) {
	g := newWrittenLog(b)
	for n := range 300_000 {
		g.line(n, "stdout", "a line of a log as long as such lines are, about a hundred characters, or some more than that")
	}
	count := &counter{}
	g.copyTo(b.Context(), corev1.PodLogOptions{}, count)
	b.SetBytes(count.n)
	b.ReportAllocs()
	for b.Loop() {
		g.copyTo(b.Context(), corev1.PodLogOptions{}, io.Discard)
	}
}

// BenchmarkReadLogOverNATS measures a log from its file to the control plane, by
// a server in this process.
func BenchmarkReadLogOverNATS(b *testing.B) {
	g := newWrittenLog(b)
	for n := range 380_000 {
		g.line(n, "stdout", "a line of a log as long as such lines are, about a hundred characters, or some more than that")
	}
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	ns.Start()
	defer func() { ns.Shutdown(); ns.WaitForShutdown() }()
	connect := func(prefix string) *kv.Conn {
		c, err := kv.Connect(b.Context(), kv.ConnOptions{InProcess: ns, InboxPrefix: prefix, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	node, control := connect("_INBOX.n1"), connect("")
	defer node.Close()
	defer control.Close()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		kv.ServeStreams(ctx, node, "n1", func(ctx context.Context, r kv.StreamRequest, s *kv.Stream) error {
			if err := s.Accept(); err != nil {
				return err
			}
			g.copyTo(ctx, *r.Log, sender{ctx, s})
			return nil
		})
	})
	streams := kv.NewStreams(control)
	wg.Go(func() { streams.Run(ctx) })
	fetch := func() (n int64, err error) {
		s, err := streams.Open(ctx, "n1", kv.StreamRequest{Verb: kv.StreamLog, Log: &corev1.PodLogOptions{}})
		if err != nil {
			return 0, err
		}
		defer s.Close(nil)
		for {
			_, data, err := s.Recv(ctx)
			if errors.Is(err, io.EOF) {
				return n, nil
			}
			if err != nil {
				return n, err
			}
			n += int64(len(data))
		}
	}
	eventually(b, "the node listens", func() bool { _, err = fetch(); return err == nil })
	n, _ := fetch()
	b.SetBytes(n)
	for b.Loop() {
		if got, err := fetch(); err != nil || got != n {
			b.Fatalf("%d bytes of %d: %v", got, n, err)
		}
	}
}

// A sender writes to a stream.
type sender struct {
	ctx context.Context
	s   *kv.Stream
}

func (w sender) Write(p []byte) (int, error) { return len(p), w.s.Send(w.ctx, kv.ChannelStdout, p) }

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }
