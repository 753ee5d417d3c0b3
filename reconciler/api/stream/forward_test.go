package stream

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// A meeting is a client's stream that has ended, and whose other half this side
// ends just when somebody asks about it.
type meeting struct {
	httpstream.Stream
	end func()
}

func (meeting) Read([]byte) (int, error) { return 0, io.EOF }

func (m meeting) IsFinished() bool { m.end(); return true }

// A lasting is a session that goes on.
type lasting struct{ httpstream.Connection }

func (lasting) CloseChan() <-chan bool { return nil }

// Where both sides end their halves at the same time nobody has gone.
func TestForwardEndsMeet(t *testing.T) {
	x := &clientInput{session: lasting{}}
	x.Stream = meeting{end: func() { x.closed.Store(true) }}
	if _, err := x.Read(nil); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// A client that drops one connection is not told that this was an error:
// kubectl would end all of them.
func TestForwardOfOneThatIsDropped(t *testing.T) {
	g := &rig{t: t, pod: webPod(), node: &fakeNode{handle: func(_ kv.StreamRequest, n nodeSide) error {
		_ = n.write(kv.ChannelStdout, "hello")
		<-n.ctx.Done()
		return nil
	}}}
	streams := g.newStreams()
	g.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		streams.PortForward(w, r, schema.PodKey{Namespace: "default", Name: "web"})
	}))
	defer g.server.Close()
	transport, upgrader, err := spdy.RoundTripperFor(&rest.Config{Host: g.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(g.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	session, _, err := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, u).Dial(portforward.PortForwardV1Name)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	create := func(kind string) httpstream.Stream {
		s, err := session.CreateStream(http.Header{corev1.StreamType: {kind}, corev1.PortHeader: {"80"}, corev1.PortForwardRequestIDHeader: {"0"}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	fault, data := create(corev1.StreamTypeError), create(corev1.StreamTypeData)
	if _, err := io.ReadFull(data, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	data.Reset()
	if text, err := io.ReadAll(fault); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
