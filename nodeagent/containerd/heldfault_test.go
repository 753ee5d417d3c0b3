package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// A process that ends while somebody types to it leaves nothing that two touch at
// one time.
func TestInputOfAProcessThatEnds(t *testing.T) {
	x, reader := inputOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	x.Stdin = func(ctx context.Context) ([]byte, error) {
		if asked++; asked == 1 {
			return []byte("hello"), reader.Close()
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	go func() {
		for limit := time.Now().Add(patience); time.Now().Before(limit) && fileOpen(reader.Name()); {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	x.feed(ctx)
	if asked != 2 {
		t.Errorf("input was asked for %d times", asked)
	}
}

// inputOf returns an attachment to a container without a process, and the end of
// its input that the process would have; the test closes that.
func inputOf(t *testing.T) (*attachment, *os.File) {
	t.Helper()
	r := &Runtime{opts: Options{RunDir: t.TempDir()}}
	rec := record{uid: "uid", stdin: stdinOpen}
	rec.ID = "id"
	path := r.inputPath(rec.uid, rec.ID)
	mkdirAll(t, filepath.Dir(path))
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &attachment{r: r, rec: rec, fed: make(chan struct{})}, reader
}

// fileOpen says whether this process has the file open.
func fileOpen(path string) bool {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && to == path {
			return true
		}
	}
	return false
}

// Registries that asked to be left alone are forgotten when their time is over,
// however many there are.
func TestBusyRegistriesAreForgotten(t *testing.T) {
	w := newWire(pace{})
	for i := range 100 {
		w.busy[fmt.Sprintf("r%d.example", i)] = &busyError{until: time.Now().Add(-time.Second)}
	}
	w.isBusy(&http.Response{
		StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}},
		Request: &http.Request{URL: &url.URL{Host: "last.example"}},
	})
	if len(w.busy) != 1 || w.busy["last.example"] == nil {
		t.Errorf("%d are kept", len(w.busy))
	}
}

// That containerd does not answer about an image is what time may heal.
func TestImageOfWhichContainerdSaysNothing(t *testing.T) {
	g := newRig(t)
	img := g.image("busybox:1.37")
	info, err := g.rt.images.find(g.ctx, img.Ref)
	if err != nil {
		t.Fatal(err)
	}
	record, err := g.rt.client.ImageService().Get(g.ctx, img.Ref)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	if err := g.rt.images.unpack(ctx, record, info); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("unpack: %v", err)
	}
}

// A command whose client left in the very moment of its start ends with all that
// it started, though nobody was told its process.
func TestCommandWhoseStartWasNotAnswered(t *testing.T) {
	g := newRig(t)
	_, id := g.running("shell")
	x, err := g.rt.newExecution(g.ctx, id, nodeagent.Command{Argv: sh("sleep 6011 & sleep 6012 & wait")})
	if err != nil {
		t.Fatal(err)
	}
	x.grace, x.hangUp = hangUpGrace, unix.SIGTERM
	process, err := x.process(g.ctx)
	if err != nil {
		t.Fatal(err)
	}
	request := &tasks.ExecProcessRequest{ContainerID: id, ExecID: x.exec, Spec: process}
	if err := x.open(request); err != nil {
		t.Fatal(err)
	}
	defer x.close()
	if _, err := g.rt.client.TaskService().Exec(g.ctx, request); err != nil {
		t.Fatal(err)
	}
	if _, err := g.rt.client.TaskService().Start(g.ctx, &tasks.StartRequest{ContainerID: id, ExecID: x.exec}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it runs", func() bool { return len(g.commandsIn(id)) == 3 })
	if err := x.clear(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it ends", func() bool { return len(g.commandsIn(id)) == 0 })
}

// Layers that are said to be so large that their sum has no number do not fit.
func TestImageLargerThanANumber(t *testing.T) {
	a := &admission{room: func() int64 { return 1 << 40 }}
	layer := func(c string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString(c), Size: 1 << 62}
	}
	if err := a.admit(layer("a"), layer("b")); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("admitted: %v", err)
	}
}

// The end of a log stands in for a message also when its last line is a long one.
func TestMessageOfALongLastLine(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for name, written := range map[string]string{
		"just a line": long[1:] + "\n", "without its end": long[1:], "two parts": long + "tail\n", "three": long + long + "\n",
	} {
		path := filepath.Join(t.TempDir(), "0.log")
		w := testLogWriter(t, path)
		s := lines{name: "stdout"}
		w.write(func(b *bytes.Buffer) { s.format(b, []byte(written), time.Now()) })
		w.write(func(b *bytes.Buffer) { s.flush(b, time.Now()) })
		rec := record{Container: pod.Container{ID: "id", LogPath: path, ExitCode: 1, MessageLog: true}}
		got := (&Runtime{}).message(rec, &rec.Container)
		if want := written[len(written)-pod.MessageLogMost:]; got != want {
			t.Errorf("%s: %d bytes %.80q, want %d", name, len(got), got, len(want))
		}
	}
}

// What somebody typed before they were cut off still reaches the process.
func TestInputBeforeTheClientIsCut(t *testing.T) {
	x, reader := inputOf(t)
	defer reader.Close()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		x.Stdin = func(ctx context.Context) ([]byte, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			cancel()
			synctest.Wait() // what hangs on the end of ctx is done
			return []byte("hello"), nil
		}
		x.feed(ctx)
	})
	got := make([]byte, 10)
	if n, err := reader.Read(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("it reached the process: %q, %v", got[:n], err)
	}
}
