package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// The fence: whoever has the credentials of node n1 reads, writes and deletes
// nothing of the store and nothing of another node.

// forbiddenPublishes are subjects to which n1 may not publish.
var forbiddenPublishes = []string{
	"$KV.pawl-desired.deployments.default.web",
	"$KV.pawl-assignments.n1.default.mine",
	"$KV.pawl-assignments.n2.default.theirs",
	"$KV.pawl-actual.pods.default.theirs",
	"$KV.pawl-leases.leader.reconciler",
	"pawl.events.default.pods.mine",
	"$JS.API.INFO",
	"$JS.API.STREAM.NAMES",
	"$JS.API.STREAM.LIST",
	"$JS.API.STREAM.INFO.KV_pawl-desired",
	"$JS.API.STREAM.CREATE.mine",
	"$JS.API.STREAM.UPDATE.KV_pawl-desired",
	"$JS.API.STREAM.DELETE.KV_pawl-desired",
	"$JS.API.STREAM.PURGE.KV_pawl-actual",
	"$JS.API.STREAM.MSG.GET.KV_pawl-desired",
	"$JS.API.STREAM.MSG.DELETE.KV_pawl-actual",
	"$JS.API.STREAM.SNAPSHOT.KV_pawl-desired",
	"$JS.API.DIRECT.GET.KV_pawl-desired",
	"$JS.API.DIRECT.GET.KV_pawl-assignments.$KV.pawl-assignments.n2.default.theirs",
	"$JS.API.CONSUMER.CREATE.KV_pawl-desired",
	"$JS.API.CONSUMER.MSG.NEXT.KV_pawl-desired.x",
	"pawl.up.n2.pods",
	"pawl.up.n2.node",
	"pawl.down.n2.assign",
	"pawl.down.n1.assign",
	"_INBOX.n2.x",
	"_INBOX.n1.x",
	"$SYS.REQ.SERVER.PING",
	"$SYS.REQ.ACCOUNT.PING.CONNZ",
	"$SYS.REQ.CLAIMS.UPDATE",
}

// forbiddenSubscriptions are subjects to which n1 may not listen.
var forbiddenSubscriptions = []string{
	">", "*", "*.>", "*.*.>", "*.*.*", "*.*.*.*",
	"$KV.>", "$KV.pawl-desired.>", "$KV.pawl-assignments.n1.>", "$KV.*.n2.>",
	"$JS.>", "$JS.API.>", "$JS.EVENT.>", "$JS.ACK.>",
	"$SYS.>", "$SYS.ACCOUNT.>",
	"pawl.>", "pawl.*.>", "pawl.up.>", "pawl.up.*.>", "pawl.up.n1.>", "pawl.up.n2.>",
	"pawl.down.>", "pawl.down.*.assign", "pawl.down.n2.>", "pawl.events.>",
	"_INBOX.>", "_INBOX.*", "_INBOX.*.>", "_INBOX.n2.>", "_INBOX.n10.>", "_R_.>",
}

// injectedReplies are reply subjects with which the answer to a request that n1
// may make would do harm, if the gateway answered to it.
var injectedReplies = []string{
	"$JS.API.STREAM.DELETE.KV_pawl-desired",
	"$JS.API.STREAM.PURGE.KV_pawl-desired",
	"$JS.API.CONSUMER.CREATE.KV_pawl-desired",
	"$KV.pawl-actual.pods.default.theirs",
	"$KV.pawl-assignments.n2.default.theirs",
	"pawl.down.n2.assign",
	"pawl.up.n2.pods",
	"_INBOX.n2.x",
	"_INBOX.n10.x",
	"_INBOX.n1",
	"_INBOX.gateway.x",
	"pawl.events.default.pods.mine",
	"",
}

func TestFenceAroundTheStore(t *testing.T) {
	c := newCluster(t)
	c.desire(secret("password", "opensesame"))
	c.assign("n1", pod("mine"))
	c.assign("n2", pod("theirs"))
	n2 := c.agent("n2")
	if err := n2.ReportPods(t.Context(), []schema.PodReport{report("n2", pod("theirs"), corev1.PodRunning)}); err != nil {
		t.Fatal(err)
	}
	before := c.snapshot()
	heard := c.wiretap("evil")
	attacker := c.raw(must[kv.Credentials](t)(c.server.NodeCredentials("n1")), "_INBOX.n1")

	for _, subject := range forbiddenPublishes {
		for _, reply := range []string{"", "_INBOX.n1.answer"} {
			m := &nats.Msg{Subject: subject, Reply: reply, Data: []byte("evil")}
			if err := attacker.denied(func() error { return attacker.nc.PublishMsg(m) }); err != nil {
				t.Errorf("publish to %s with reply %q: %v", subject, reply, err)
			}
		}
	}
	for _, subject := range forbiddenSubscriptions {
		err := attacker.denied(func() error {
			_, err := attacker.nc.Subscribe(subject, func(*nats.Msg) {})
			return err
		})
		if err != nil {
			t.Errorf("subscribe to %s: %v", subject, err)
		}
	}
	for _, subject := range []string{"pawl.down.n1.>", "_INBOX.n1.>"} { // what it may
		if _, err := attacker.nc.Subscribe(subject, func(*nats.Msg) {}); err != nil {
			t.Error(err)
		}
	}
	if err := attacker.flush(); err != nil {
		t.Errorf("the node's own subjects: %v", err)
	}

	faults := c.gateway.Faults()["reply is not below the node's inbox"]
	injected := 0
	for _, reply := range injectedReplies {
		for _, verb := range []string{"sync", "pods", "node", "events", "token"} {
			m := &nats.Msg{Subject: "pawl.up.n1." + verb, Reply: reply, Data: []byte("evil"), Header: nats.Header{
				"Nats-Rollup": {"all"}, "Nats-Batch-Id": {"x"}, "KV-Operation": {"PURGE"},
			}}
			if err := attacker.nc.PublishMsg(m); err != nil {
				t.Fatal(err)
			}
			injected++
		}
	}
	if err := attacker.flush(); err != nil {
		t.Errorf("requests of its own: %v", err)
	}
	eventually(t, "the gateway drops the requests", func() bool {
		return c.gateway.Faults()["reply is not below the node's inbox"] == faults+uint64(injected)
	})

	// A request that is served marks the end of what the gateway had to look at.
	n1 := c.agent("n1")
	if err := n1.ReportPods(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if after := c.snapshot(); !maps.Equal(before, after) {
		t.Errorf("the store changed:\n%v\n%v", before, after)
	}
	if got := heard(); len(got) > 0 {
		t.Errorf("messages of the attacker came through: %q", got)
	}
	if !n2.holds(func(a *agent) bool { return a.wholes == 1 && len(a.deltas) == 0 })() {
		t.Error("the other node was told something")
	}
}

// What a node says in its own name about pods that are not its own changes nothing.
func TestNodeSpeaksOnlyForItself(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("mine"))
	c.assign("n2", pod("theirs"))
	c.assign("n2", pod("silent"))
	n1, n2 := c.agent("n1"), c.agent("n2")
	if err := n2.ReportPods(t.Context(), []schema.PodReport{report("n2", pod("theirs"), corev1.PodRunning), report("n2", pod("stray"), corev1.PodRunning)}); err != nil {
		t.Fatal(err)
	}
	before := c.snapshot()
	lie := func(p *corev1.Pod, change func(*schema.PodReport)) schema.PodReport {
		r := report("n1", p, corev1.PodFailed)
		if change != nil {
			change(&r)
		}
		return r
	}
	for name, r := range map[string]schema.PodReport{
		"a pod that another node reports":     lie(pod("theirs"), nil),
		"the same, gone":                      lie(pod("theirs"), func(r *schema.PodReport) { r.Gone = true }),
		"the same with another uid":           lie(pod("theirs"), func(r *schema.PodReport) { r.Pod.UID = "other" }),
		"a stray of another node":             lie(pod("stray"), nil),
		"a pod assigned to a silent node":     lie(pod("silent"), nil),
		"in the name of another node":         lie(pod("mine"), func(r *schema.PodReport) { r.Node = "n2" }),
		"a pod whose spec names another node": lie(pod("mine"), func(r *schema.PodReport) { r.Pod.Spec.NodeName = "n2" }),
		"a name that is none":                 lie(pod("a/b"), nil),
		"a name with a wildcard":              lie(pod("*"), nil),
		"no name":                             lie(pod(""), nil),
		"a namespace with dots":               lie(pod("mine"), func(r *schema.PodReport) { r.Pod.Namespace = "a.b" }),
		"a uid with spaces":                   lie(pod("mine"), func(r *schema.PodReport) { r.Pod.UID = "a b" }),
		"no uid":                              lie(pod("mine"), func(r *schema.PodReport) { r.Pod.UID = "" }),
	} {
		if err := n1.ReportPods(t.Context(), []schema.PodReport{r}); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	node := &corev1.Node{}
	node.Name = "n2"
	if err := n1.ReportNode(t.Context(), node); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("the node n2: %v", err)
	}
	if after := c.snapshot(); !maps.Equal(before, after) {
		t.Errorf("the store changed:\n%v\n%v", before, after)
	}

	// Of its own pod it says the status, and nothing else.
	own := report("n1", pod("mine"), corev1.PodRunning)
	own.Pod.Labels = map[string]string{"app": "somebody-else"}
	own.Pod.Spec.Containers[0].Image = "evil"
	if err := n1.ReportPods(t.Context(), []schema.PodReport{own}); err != nil {
		t.Fatal(err)
	}
	got := c.stored("mine").Pod
	if got.Status.Phase != corev1.PodRunning || got.Labels != nil || got.Spec.Containers[0].Image != "busybox" {
		t.Errorf("stored: %+v", got)
	}
}

// snapshot is every key of the store with its revision, and every stream with
// its settings.
func (c *cluster) snapshot() map[string]string {
	c.t.Helper()
	op := c.raw(must[kv.Credentials](c.t)(c.server.ControlCredentials()), "")
	js := must[jetstream.JetStream](c.t)(jetstream.New(op.nc))
	out := map[string]string{}
	streams := js.ListStreams(c.t.Context())
	for info := range streams.Info() {
		out[info.Config.Name] = fmt.Sprintf("%+v %d %d", info.Config, info.State.LastSeq, info.State.Consumers)
	}
	if streams.Err() != nil || len(out) < 5 {
		c.t.Fatalf("%d streams: %v", len(out), streams.Err())
	}
	return out
}

// A rawConn speaks NATS without manners.
type rawConn struct {
	nc   *nats.Conn
	errs chan error
}

func (c *cluster) raw(creds kv.Credentials, inbox string) *rawConn {
	c.t.Helper()
	r := &rawConn{errs: make(chan error, 1000)}
	options := []nats.Option{
		nats.UserJWTAndSeed(creds.JWT, creds.Seed),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { r.errs <- err }),
	}
	if inbox != "" {
		options = append(options, nats.CustomInboxPrefix(inbox))
	}
	r.nc = must[*nats.Conn](c.t)(nats.Connect(c.server.ClientURL(), options...))
	c.t.Cleanup(r.nc.Close)
	return r
}

// flush returns what the server said of everything sent so far.
func (r *rawConn) flush() error {
	if err := r.nc.Flush(); err != nil {
		return err
	}
	select {
	case err := <-r.errs:
		return err
	default:
		return nil
	}
}

// denied says why f was not denied; nil when it was.
func (r *rawConn) denied(f func() error) error {
	if err := f(); err != nil {
		return err
	}
	if err := r.nc.Flush(); err != nil {
		return err
	}
	select {
	case err := <-r.errs:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			return err
		}
		return nil
	case <-time.After(5 * time.Second):
		return errors.New("it was allowed")
	}
}

// wiretap hears everything in both accounts but what n1 may say, and returns
// what of it holds the word.
func (c *cluster) wiretap(word string) func() []string {
	c.t.Helper()
	var mu sync.Mutex
	var heard []string
	listen := func(creds kv.Credentials, subjects ...string) {
		r := c.raw(creds, "")
		for _, s := range subjects {
			_, err := r.nc.Subscribe(s, func(m *nats.Msg) {
				if strings.HasPrefix(m.Subject, "pawl.up.n1.") || !bytes.Contains(m.Data, []byte(word)) {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, m.Subject)
			})
			if err != nil {
				c.t.Fatal(err)
			}
		}
		if err := r.flush(); err != nil {
			c.t.Fatal(err)
		}
	}
	listen(must[kv.Credentials](c.t)(c.server.ControlCredentials()), ">")
	listen(must[kv.Credentials](c.t)(c.server.GatewayCredentials()), "pawl.up.>", "_INBOX.>")
	listen(must[kv.Credentials](c.t)(c.server.NodeCredentials("n2")), "pawl.down.n2.>", "_INBOX.n2.>")
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return heard
	}
}

// A node cannot invent a pod, to be given what it uses, nor change one that it
// had: of what nobody assigned only the cluster's own word is taken back.
func TestInventedPods(t *testing.T) {
	c := newCluster(t)
	n1 := c.agent("n1")
	uses := func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}} }
	unsigned := report("n1", pod("invented", uses), corev1.PodRunning)
	unsigned.Signature = ""
	changed := report("n1", pod("changed"), corev1.PodRunning)
	uses(&changed.Pod)
	elsewhere := report("n2", pod("elsewhere", uses), corev1.PodRunning)
	elsewhere.Node, elsewhere.Pod.Spec.NodeName = "n1", "n1"
	for _, r := range []schema.PodReport{unsigned, changed, elsewhere} {
		if err := n1.ReportPods(t.Context(), []schema.PodReport{r}); !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "was not assigned to node n1 by this cluster") {
			t.Errorf("%s: %v", r.Pod.Name, err)
		}
	}
	had := report("n1", pod("had"), corev1.PodRunning)
	if err := n1.ReportPods(t.Context(), []schema.PodReport{had}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its word is stored", func() bool { return c.stored("had") != nil })
	uses(&had.Pod)
	had.Pod.Status.Phase = corev1.PodFailed
	if err := n1.ReportPods(t.Context(), []schema.PodReport{had}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its status is stored", func() bool { return c.stored("had").Pod.Status.Phase == corev1.PodFailed })
	if s := c.stored("had").Pod.Spec.ImagePullSecrets; len(s) > 0 {
		t.Errorf("its spec was changed: %v", s)
	}
}
