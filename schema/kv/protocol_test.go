package kv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

func TestFramesPutTogetherAreTheContent(t *testing.T) {
	var a assembler
	for _, n := range []int{0, 1, frameSize - 1, frameSize, frameSize + 1, 5*frameSize + 7} {
		content := bytes.Repeat([]byte("x"), n)
		for i, f := range frames(content) {
			if len(f) > MaxMessage {
				t.Errorf("frame of %d bytes", len(f))
			}
			got, err := a.add(f)
			if err != nil {
				t.Fatal(err)
			}
			last := i == len(frames(content))-1
			if (got != nil) != last && n > 0 {
				t.Errorf("%d bytes: frame %d completes: %v", n, i, got != nil)
			}
			if last && !bytes.Equal(got, content) {
				t.Errorf("%d bytes come out as %d", n, len(got))
			}
		}
	}
}

func TestLostFramesAreNoticed(t *testing.T) {
	long := frames(bytes.Repeat([]byte("x"), 3*frameSize))
	other := frames(bytes.Repeat([]byte("y"), 2*frameSize))
	short := frames([]byte("z"))
	for name, c := range map[string]struct {
		sent [][]byte
		want string // what each frame yields: . nothing, ! lost, c content
	}{
		"whole":              {[][]byte{long[0], long[1], long[2]}, "..c"},
		"first lost":         {[][]byte{long[1], long[2], short[0]}, "!!c"},
		"middle lost":        {[][]byte{long[0], long[2], short[0]}, ".!c"},
		"last lost":          {[][]byte{long[0], long[1], other[0], other[1]}, "..!c"},
		"last lost, short":   {[][]byte{long[0], long[1], short[0]}, "..!"},
		"twice":              {[][]byte{long[0], long[0], long[1], long[2]}, ".!.c"},
		"garbage in between": {[][]byte{long[0], []byte("garbage"), long[1], short[0]}, ".!!c"},
	} {
		var a assembler
		got := ""
		for _, f := range c.sent {
			switch content, err := a.add(f); {
			case err != nil:
				got += "!"
			case content != nil:
				got += "c"
			default:
				got += "."
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, m := range frames(bytes.Repeat([]byte("x"), 2*frameSize)) {
		f.Add(m[:100])
	}
	f.Add([]byte("pawl1 id 0 1\n{}"))
	f.Add([]byte("pawl1 id -1 99999999999\n"))
	f.Add([]byte("pawl1 id 0 513\nx"))
	f.Fuzz(func(t *testing.T, message []byte) {
		var a assembler
		for range 3 {
			content, err := a.add(message)
			if err == nil && len(content) > len(message) {
				t.Errorf("%d bytes became %d", len(message), len(content))
			}
			if len(a.parts) > 3*len(message) {
				t.Errorf("%d bytes are held of %d", len(a.parts), 3*len(message))
			}
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(`[{"node":"n1","pod":{"metadata":{"name":"a"}},"gone":true}]`))
	f.Add([]byte(`{"metadata":{"name":"n1"},"status":{"capacity":{"cpu":"1e99"}}}`))
	f.Add([]byte(`{"error":"x","class":"refused","generation":{"epoch":"e","number":1}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := DecodePods(data); err != nil && !errors.Is(err, schema.ErrRefused) {
			t.Error(err)
		}
		if _, err := DecodeNode(data); err != nil && !errors.Is(err, schema.ErrRefused) {
			t.Error(err)
		}
		if _, err := decodeAnswer(data); err != nil && !errors.Is(err, schema.ErrRefused) && !errors.Is(err, schema.ErrUnavailable) && !errors.Is(err, schema.ErrConflict) {
			t.Error(err)
		}
	})
}

func FuzzSubjects(f *testing.F) {
	for _, s := range []string{"pawl.up.n1.sync", "pawl.up.*.sync", "pawl.up.n1.", "pawl.down.n1.sync", "pawl.up.n1.pods.x", "pawl.up.N.node"} {
		f.Add(s, "_INBOX.n1.x")
	}
	f.Fuzz(func(t *testing.T, subject, reply string) {
		n, v, err := parseUpSubject(subject)
		if err != nil {
			return
		}
		if upSubject(n, v) != subject || n.Validate() != nil {
			t.Errorf("%q is %q of %q", subject, v, n)
		}
		if safeReply(n, reply) && (!strings.HasPrefix(reply, "_INBOX."+string(n)+".") || strings.ContainsAny(reply, "*> \r\n")) {
			t.Errorf("reply %q is safe for %q", reply, n)
		}
	})
}

func TestReportsArePackedIntoMessages(t *testing.T) {
	var reports []schema.PodReport
	for i := range 300 {
		p := somePod(fmt.Sprint("p", i))
		p.Annotations = map[string]string{"x": strings.Repeat("y", 10_000)}
		reports = append(reports, schema.PodReport{Node: "n1", Pod: p})
	}
	var got []schema.PodReport
	for rest := reports; len(rest) > 0; {
		n, content, err := packReports(rest)
		if err != nil || len(content) > MaxMessage || n == 0 {
			t.Fatalf("%d reports in %d bytes: %v", n, len(content), err)
		}
		part, err := DecodePods(content)
		if err != nil || len(part) != n {
			t.Fatalf("%d reports read of %d: %v", len(part), n, err)
		}
		got, rest = append(got, part...), rest[n:]
	}
	if len(got) != len(reports) || got[299].Pod.Name != "p299" {
		t.Errorf("%d reports came through", len(got))
	}
	huge := somePod("huge")
	huge.Annotations = map[string]string{"x": strings.Repeat("y", MaxMessage)}
	if _, _, err := packReports([]schema.PodReport{{Node: "n1", Pod: huge}}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a report too large for a message: %v", err)
	}
}

// Decoding a message takes memory in proportion to its length, also one that is
// made to take more.
func TestDecodingIsBounded(t *testing.T) {
	fill := func(before, element, after string) []byte {
		return []byte(before + strings.Repeat(element+",", (MaxMessage-len(before)-len(after))/(len(element)+1)-1) + element + after)
	}
	for name, data := range map[string][]byte{
		"empty reports":    fill(`[`, `{}`, `]`),
		"null reports":     fill(`[`, `null`, `]`),
		"numbers":          fill(`[`, `1`, `]`),
		"empty containers": fill(`[{"pod":{"spec":{"containers":[`, `{}`, `]}}}]`),
		"null containers":  fill(`[{"pod":{"spec":{"containers":[`, `null`, `]}}}]`),
		"number for each":  fill(`[{"pod":{"spec":{"containers":[`, `1`, `]}}}]`),
		"names only":       fill(`[{"pod":{"spec":{"containers":[`, `{"name":"abcdefgh"}`, `]}}}]`),
		"deep":             bytes.Repeat([]byte("["), MaxMessage),
		"images":           fill(`{"status":{"images":[`, `{}`, `]}}`),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		DecodePods(data)
		DecodeNode(data)
		runtime.ReadMemStats(&after)
		if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 200 {
			t.Errorf("%s: %d MiB for %d bytes", name, mb, len(data))
		}
	}
}

func TestAnswersKeepTheClassOfAnError(t *testing.T) {
	for _, class := range []error{schema.ErrRefused, schema.ErrUnavailable, schema.ErrConflict} {
		raw := encode(t, AnswerError(fmt.Errorf("why: %w", class)))
		if _, err := decodeAnswer(raw); !errors.Is(err, class) || !strings.Contains(err.Error(), "why") {
			t.Errorf("%v arrives as %v", class, err)
		}
	}
	if _, err := decodeAnswer(encode(t, AnswerError(errors.New("a bug")))); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("a bug arrives as %v", err)
	}
}

// A peer is a gateway by hand: it answers syncs and sends what a test wants.
type peer struct {
	t    *testing.T
	conn *Conn
	door *Door

	mu     sync.Mutex
	number uint64
	pods   int
	mute   atomic.Bool
	syncs  atomic.Int32
}

func newPeer(t *testing.T, s *testServer) *peer {
	t.Helper()
	p := &peer{t: t, conn: s.connect()}
	p.door = NewDoor(p.conn, func(schema.NodeName, string) {})
	run(t, func(ctx context.Context) error { return p.door.Run(ctx, p.handle) })
	return p
}

func (p *peer) generation(n uint64) Generation { return Generation{Epoch: "e", Number: n} }

func (p *peer) handle(r Request) {
	if p.mute.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.Verb {
	case VerbSync:
		p.syncs.Add(1)
		set := Set{Generation: p.generation(p.number)}
		for i := range p.pods {
			pod := somePod(fmt.Sprint("p", i))
			pod.Annotations = map[string]string{"x": strings.Repeat("y", 10_000)}
			set.Assignments = append(set.Assignments, schema.Assignment{Node: r.Node, Pod: pod})
		}
		p.door.Answer(r, Answer{Set: &set})
	case VerbNode:
		g := p.generation(p.number)
		p.door.Answer(r, Answer{Generation: &g})
	default:
		p.door.Answer(r, Answer{})
	}
}

// delta sends the next delta, with one new pod; lost: nobody gets it.
func (p *peer) delta(lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := Delta{Previous: p.generation(p.number), Generation: p.generation(p.number + 1)}
	d.Assignments = []schema.Assignment{{Node: "n1", Pod: somePod(fmt.Sprint("p", p.pods))}}
	p.number++
	p.pods++
	if lost {
		return
	}
	if err := p.door.Send("n1", d); err != nil {
		p.t.Error(err)
	}
}

// A recorder is a handler that counts.
type recorder struct {
	mu             sync.Mutex
	wholes, deltas int
	pods           map[string]bool
}

func (r *recorder) Whole(s Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wholes++
	r.pods = map[string]bool{}
	for _, a := range s.Assignments {
		r.pods[a.Pod.Name] = true
	}
}

func (r *recorder) Delta(d Delta) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deltas++
	for _, a := range d.Assignments {
		r.pods[a.Pod.Name] = true
	}
}

func (r *recorder) has(wholes, deltas, pods int) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.wholes == wholes && r.deltas == deltas && len(r.pods) == pods
	}
}

func newAgent(t *testing.T, s *testServer) (*Agent, *recorder) {
	t.Helper()
	c, err := Connect(t.Context(), ConnOptions{URL: s.ns.ClientURL(), Name: "agent", InboxPrefix: "_INBOX.n1", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	a, r := NewAgent(c, "n1"), &recorder{pods: map[string]bool{}}
	run(t, func(ctx context.Context) error { return a.Run(ctx, r) })
	return a, r
}

func TestAgentFollowsDeltas(t *testing.T) {
	s := newServer(t)
	p := newPeer(t, s)
	p.pods = 300 // 3 MB: several frames
	_, r := newAgent(t, s)
	eventually(t, "the set is there", r.has(1, 0, 300))
	for range 50 {
		p.delta(false)
	}
	eventually(t, "the deltas are", r.has(1, 50, 350))
	if err := p.door.Send("n1", Delta{Previous: p.generation(3), Generation: p.generation(4)}); err != nil {
		t.Fatal(err)
	}
	p.delta(false)
	eventually(t, "an old delta is passed over", r.has(1, 51, 351))
}

func TestGapMakesTheAgentFetchItsSet(t *testing.T) {
	s := newServer(t)
	p := newPeer(t, s)
	_, r := newAgent(t, s)
	eventually(t, "the set is there", r.has(1, 0, 0))
	p.delta(false)
	p.delta(true)
	p.delta(false)
	eventually(t, "the gap was filled", r.has(2, 1, 3))
	p.delta(false)
	eventually(t, "deltas go on", r.has(2, 2, 4))

	if err := p.conn.nc.Publish(downSubject("n1"), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "garbage is a gap", r.has(3, 2, 4))
	for _, f := range frames([]byte("{")) {
		if err := p.conn.nc.Publish(downSubject("n1"), f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "so is broken JSON", r.has(4, 2, 4))
}

// The last delta was lost and none follows: the heartbeat tells.
func TestHeartbeatFindsALostDelta(t *testing.T) {
	s := newServer(t)
	p := newPeer(t, s)
	a, r := newAgent(t, s)
	eventually(t, "the set is there", r.has(1, 0, 0))
	p.delta(true)
	if err := a.ReportNode(t.Context(), &corev1.Node{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent has fetched its set", r.has(2, 0, 1))
}

func TestAgentComesBackAfterTheServer(t *testing.T) {
	s := newServer(t)
	p := newPeer(t, s)
	a, r := newAgent(t, s)
	eventually(t, "the set is there", r.has(1, 0, 0))
	for i := range 3 {
		s.stop()
		began := time.Now()
		if err := a.ReportPods(t.Context(), []schema.PodReport{{Node: "n1"}}); !errors.Is(err, schema.ErrUnavailable) || time.Since(began) > 5*time.Second {
			t.Errorf("without a server, after %s: %v", time.Since(began), err)
		}
		p.delta(true)
		s.start()
		eventually(t, "the agent has what it missed", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.wholes >= i+2 && len(r.pods) == i+1
		})
		eventually(t, "reports arrive", func() bool {
			return a.ReportPods(t.Context(), []schema.PodReport{{Node: "n1"}}) == nil
		})
	}
}

func TestAgentWaitsForAGateway(t *testing.T) {
	s := newServer(t)
	a, r := newAgent(t, s)
	if err := a.ReportPods(t.Context(), []schema.PodReport{{Node: "n1"}}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	p := newPeer(t, s)
	eventually(t, "the set is there", r.has(1, 0, 0))
	p.mute.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := a.ReportPods(ctx, []schema.PodReport{{Node: "n1"}}); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("nobody answers: %v", err)
	}
}

func TestDoorLetsInOnlyWhatIsHarmless(t *testing.T) {
	causes := map[string]int{}
	d := NewDoor(nil, func(_ schema.NodeName, cause string) { causes[cause]++ })
	now := time.Now()
	ask := func(subject, reply string, size int) bool {
		_, ok := d.admit(&nats.Msg{Subject: subject, Reply: reply, Data: make([]byte, size)}, now)
		return ok
	}
	for i, c := range []struct {
		subject, reply string
		size           int
		want           bool
	}{
		{"pawl.up.n1.sync", "_INBOX.n1.a.b", 0, true},
		{"pawl.up.n1.pods", "_INBOX.n1.a", MaxMessage, true},
		{"pawl.up.n1.pods", "_INBOX.n1.a", MaxMessage + 1, false},
		{"pawl.up.n1.exec", "_INBOX.n1.a", 0, false},
		{"pawl.up.n1", "_INBOX.n1.a", 0, false},
		{"pawl.up.n1.pods.x", "_INBOX.n1.a", 0, false},
		{"pawl.up.N1.pods", "_INBOX.N1.a", 0, false},
		{"pawl.up.n1.pods", "", 0, false},
		{"pawl.up.n1.pods", "_INBOX.n1", 0, false},
		{"pawl.up.n1.pods", "_INBOX.n1.", 0, false},
		{"pawl.up.n1.pods", "_INBOX.n10.a", 0, false},
		{"pawl.up.n1.pods", "_INBOX.n1.>", 0, false},
		{"pawl.up.n1.pods", "_INBOX.n1." + strings.Repeat("x", 300), 0, false},
		{"pawl.up.n1.pods", "$JS.API.STREAM.DELETE.x", 0, false},
	} {
		if got := ask(c.subject, c.reply, c.size); got != c.want {
			t.Errorf("%d: %s with reply %q and %d bytes: let in %v", i, c.subject, c.reply, c.size, got)
		}
	}
	in := 0
	for range 5000 {
		if ask("pawl.up.flood.pods", "_INBOX.flood.a", 10) {
			in++
		}
	}
	if in != nodeRequestsBurst {
		t.Errorf("%d requests of a flood were let in", in)
	}
	if !ask("pawl.up.n1.pods", "_INBOX.n1.a", 10) {
		t.Error("another node is shut out by the flood")
	}
	in = 0
	for range 100 {
		if ask("pawl.up.fat.pods", "_INBOX.fat.a", MaxMessage) {
			in++
		}
	}
	if in != nodeBytesBurst/MaxMessage {
		t.Errorf("%d MB of a flood were let in", in)
	}
	now = now.Add(nodeIdle + 2*time.Minute)
	ask("pawl.up.n2.pods", "_INBOX.n2.a", 0)
	if len(d.nodes) != 1 {
		t.Errorf("%d silent nodes are remembered", len(d.nodes)-1)
	}
	if causes["too many requests"] == 0 || causes["too large"] != 1 {
		t.Errorf("causes: %v", causes)
	}
}

func TestGenerationsReadWell(t *testing.T) {
	raw, err := json.Marshal(Delta{Generation: Generation{"e", 2}, Previous: Generation{"e", 1}, Remove: []schema.ObjectKey{{Kind: schema.Pods, Namespace: "default", Name: "web"}}})
	if err != nil || !strings.HasPrefix(string(raw), `{"generation":{"epoch":"e","number":2},"previous":{"epoch":"e","number":1},"remove":[`) {
		t.Errorf("%s, %v", raw, err)
	}
}
