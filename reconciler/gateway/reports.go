package gateway

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/placement"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// maxReports bounds the reports in one request.
	maxReports = 5000
	// maxStrays bounds the pods that one node may speak of though nobody
	// assigned them: what it ran when the store was lost.
	maxStrays = 1000
	// maxStrayBytes bounds what all of those take in the store.
	maxStrayBytes = 32 << 20
	// maxStatus bounds a pod's status, maxNode a node, in bytes of JSON.
	maxStatus = 128 << 10
	maxNode   = 512 << 10
	// nodeWriteEvery is how often a node is written of which only the heartbeat changed.
	nodeWriteEvery = 5 * time.Minute
	// LeaseTTL is how long a node counts as there after it was heard.
	LeaseTTL = 40 * time.Second
)

var (
	dnsLabel     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	uidForm      = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9._]{0,127}$`)
)

// takePods takes reports in. They are answered once all are stored.
func (g *Gateway) takePods(r kv.Request) {
	reports, err := kv.DecodePods(r.Data)
	if err == nil && len(reports) > maxReports {
		err = fmt.Errorf("%d reports in one request, at most %d: %w", len(reports), maxReports, schema.ErrRefused)
	}
	if err != nil {
		g.refuse(r, "report cannot be read", err)
		return
	}
	if !g.whole() || !g.o.Actual.Whole() {
		g.answer(r, kv.AnswerError(fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)))
		return
	}
	n := g.node(r.Node)
	n.heard = time.Now()
	r.Data = nil // it waits for its answer only
	job := &job{request: r}
	var refused error
	for i := range reports {
		e, err := g.judge(n, &reports[i])
		switch {
		case err != nil:
			refused = err
		case e != nil:
			if err := g.inbox.put(e, job); err != nil {
				g.refuse(r, "too much waits to be stored", err)
				job.answered = true
				return
			}
		}
	}
	if refused != nil {
		// What could be taken is; the agent learns of the one that could not.
		g.refuse(r, "report is not this node's to make", refused)
		job.answered = true
		return
	}
	if job.waiting == 0 {
		g.answer(r, kv.Answer{})
	}
}

// judge says what is to be stored of a report: nil for nothing, because it is
// stored already or old news. The error wraps schema.ErrRefused.
func (g *Gateway) judge(n *node, r *schema.PodReport) (*entry, error) {
	if err := sane(n.name, r); err != nil {
		return nil, err
	}
	pod := schema.PodKey{Namespace: r.Pod.Namespace, Name: r.Pod.Name}
	key := kv.ObjectKey(podObject(pod))
	assigned, isAssigned := g.o.Assignments.Get(kv.AssignmentKey(n.name, pod))
	stored, isStored := g.o.Actual.Get(key)
	old := stored.Value.Report
	isStored = isStored && old != nil
	ours := isStored && old.Node == n.name && old.Pod.UID == r.Pod.UID
	wanted := isAssigned && assigned.Value.Pod.UID == r.Pod.UID
	switch {
	case wanted && (!isStored || old.Node == "" || old.Node == n.name || old.Gone || old.Pod.UID != r.Pod.UID):
		// Of what it was assigned a node says the status; the rest is ours.
		told := *r
		told.Pod = assigned.Value.Pod
		told.Pod.Status = r.Pod.Status
		r = &told
	case ours:
		// Its own word of before, about a pod that is no longer assigned to it.
		told := *r
		told.Pod = old.Pod
		told.Pod.Status = r.Pod.Status
		if told.Pod.DeletionTimestamp == nil {
			told.Pod.DeletionTimestamp, told.Pod.DeletionGracePeriodSeconds = r.Pod.DeletionTimestamp, r.Pod.DeletionGracePeriodSeconds
		}
		r = &told
	case isStored && old.Node != n.name && old.Node != "":
		// Without a node it is the planner's word on a pod that waits for one.
		return nil, fmt.Errorf("pod %s is reported by another node: %w", pod, schema.ErrRefused)
	case len(g.assigned[pod]) > 0 && !isAssigned:
		return nil, fmt.Errorf("pod %s is assigned to another node: %w", pod, schema.ErrRefused)
	case r.Gone:
		return nil, nil // nobody waits to hear it
	case isAssigned || isStored && !old.Gone && old.Node != "":
		return nil, nil // another pod has the name by now
	case !g.o.Signed(r):
		return nil, fmt.Errorf("pod %s, uid %s, was not assigned to node %s by this cluster: %w", pod, r.Pod.UID, n.name, schema.ErrRefused)
	}
	if isStored && same(old, r) && !g.inbox.has(key) {
		return nil, nil
	}
	text, err := encode(r)
	if err != nil {
		return nil, err
	}
	if !wanted && !g.mayStray(n, pod, len(text)) {
		return nil, fmt.Errorf("node %s reports more than %d pods, or %d bytes of them, that were not assigned to it: %w", n.name, maxStrays, maxStrayBytes, schema.ErrRefused)
	}
	return &entry{key: key, node: n.name, value: text}, nil
}

// encode makes the value to be stored of a report.
func encode(r *schema.PodReport) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("report of pod %s/%s: %w: %w", r.Pod.Namespace, r.Pod.Name, err, schema.ErrRefused)
	}
	if len(text) <= maxStatus {
		return text, nil
	}
	status, err := json.Marshal(r.Pod.Status)
	if err == nil && len(status) > maxStatus {
		err = fmt.Errorf("its status has %d bytes, at most %d are stored", len(status), maxStatus)
	}
	if err != nil {
		return nil, fmt.Errorf("report of pod %s/%s: %w: %w", r.Pod.Namespace, r.Pod.Name, err, schema.ErrRefused)
	}
	return text, nil
}

// same says whether a report tells nothing new.
func same(old, r *schema.PodReport) bool {
	return old.Node == r.Node && old.Gone == r.Gone && equality.Semantic.DeepEqual(old.Pod, r.Pod)
}

// mayStray counts the pods that a node reported and nobody had assigned. One that
// is adopted, or ended, goes on to count until it is gone: only the node can say so.
func (g *Gateway) mayStray(n *node, pod schema.PodKey, size int) bool {
	fits := func() bool {
		more := size - n.strays[pod]
		if n.strays[pod] == 0 && len(n.strays) >= maxStrays {
			return false
		}
		return n.strayBytes+more <= maxStrayBytes
	}
	if !fits() { // some may have gone
		g.forgetStrays(n)
	}
	if !fits() {
		return false
	}
	n.unstray(pod)
	n.strays[pod] = size
	n.strayBytes += size
	return true
}

// forgetStrays counts off those that are not in the store any more.
func (g *Gateway) forgetStrays(n *node) {
	for p := range n.strays {
		key := kv.ObjectKey(podObject(p))
		if _, exists := g.o.Actual.Get(key); !exists && !g.inbox.has(key) {
			n.unstray(p)
		}
	}
}

func (n *node) unstray(p schema.PodKey) {
	n.strayBytes -= n.strays[p]
	delete(n.strays, p)
}

// sane refuses what no agent would send.
func sane(n schema.NodeName, r *schema.PodReport) error {
	p := &r.Pod
	switch {
	case r.Node != n:
		return fmt.Errorf("report names node %.80q: %w", string(r.Node), schema.ErrRefused)
	case !dnsLabel.MatchString(p.Namespace), !dnsSubdomain.MatchString(p.Name):
		return fmt.Errorf("report of pod %.80q in namespace %.80q: no such names: %w", p.Name, p.Namespace, schema.ErrRefused)
	case !uidForm.MatchString(string(p.UID)):
		return fmt.Errorf("report of pod %s/%s: uid %.80q: %w", p.Namespace, p.Name, string(p.UID), schema.ErrRefused)
	case p.Spec.NodeName != "" && p.Spec.NodeName != string(n):
		return fmt.Errorf("report of pod %s/%s: its spec names node %.80q: %w", p.Namespace, p.Name, p.Spec.NodeName, schema.ErrRefused)
	}
	return nil
}

// takeNode takes a node's word about itself, which is its heartbeat.
func (g *Gateway) takeNode(r kv.Request) {
	told, err := kv.DecodeNode(r.Data)
	if err == nil && told.Name != string(r.Node) {
		err = fmt.Errorf("report names node %.80q: %w", told.Name, schema.ErrRefused)
	}
	if err != nil {
		g.refuse(r, "report cannot be read", err)
		return
	}
	if !g.o.Actual.Whole() {
		g.answer(r, kv.AnswerError(fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)))
		return
	}
	now := time.Now()
	n := g.node(r.Node)
	n.heard = now
	if !n.synced {
		// A node is known only after it was told its set and said what it runs:
		// a store that was lost would else be filled with pods made anew.
		a := kv.AnswerError(fmt.Errorf("node %s is to sync first: %w", r.Node, schema.ErrUnavailable))
		at := g.generationOf(n)
		a.Generation = &at
		g.answer(r, a)
		return
	}
	told.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	told.Namespace = ""
	key := kv.ObjectKey(schema.ObjectKey{Kind: schema.Nodes, Name: told.Name})
	e := &entry{key: key, node: n.name, lease: true}
	stored, _ := g.o.Actual.Get(key)
	old, _ := stored.Value.Object.(*corev1.Node)
	g.identify(told, old, now)
	told.Spec.Taints = placement.Taints(told)
	sinceWhen(told, old, now)
	if old == nil || now.Sub(n.written) > nodeWriteEvery || !sameNode(old, told) || g.inbox.has(key) {
		text, err := json.Marshal(told)
		if err == nil && len(text) > maxNode {
			err = fmt.Errorf("%d bytes, at most %d are stored", len(text), maxNode)
		}
		if err != nil {
			g.refuse(r, "report cannot be read", fmt.Errorf("node %s: %w: %w", told.Name, err, schema.ErrRefused))
			return
		}
		e.value = text
		n.written = now
	}
	r.Data = nil
	if err := g.inbox.put(e, &job{request: r}); err != nil {
		g.refuse(r, "too much waits to be stored", err)
	}
}

// identify gives a node what a server says of an object: who it is, and since
// when it is known.
func (g *Gateway) identify(told, old *corev1.Node, now time.Time) {
	told.UID = schema.UIDOf(schema.ObjectKey{Kind: schema.Nodes, Name: told.Name})
	told.CreationTimestamp = metav1.NewTime(now.Truncate(time.Second))
	if old != nil && !old.CreationTimestamp.IsZero() {
		told.CreationTimestamp = old.CreationTimestamp
	}
}

// sameNode says whether only heartbeats differ.
func sameNode(a, b *corev1.Node) bool {
	return equality.Semantic.DeepEqual(stillNode(a), stillNode(b))
}

// stillNode is a copy of a node without its heartbeats.
func stillNode(n *corev1.Node) *corev1.Node {
	c := *n
	c.Status.Conditions = append([]corev1.NodeCondition(nil), n.Status.Conditions...)
	for i := range c.Status.Conditions {
		c.Status.Conditions[i].LastHeartbeatTime.Reset()
	}
	return &c
}
