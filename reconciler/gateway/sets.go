package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/time/rate"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// nodeSilence is after how long a node that is not heard of is forgotten; it
	// fetches its whole set when it comes back.
	nodeSilence = 10 * time.Minute
	// greetEvery bounds how often a node that has fetched nothing yet is told
	// that there is something.
	greetEvery = 2 * time.Second
)

// A node is what one node was sent.
type node struct {
	name       schema.NodeName
	generation uint64
	synced     bool // it has fetched a set in this epoch, so that deltas make sense
	heard      time.Time
	greeted    time.Time
	sent       map[schema.ObjectKey]uint64                    // revision of each pod's assignment and of each object
	uses       map[schema.ObjectKey]map[schema.ObjectKey]bool // pod → objects it uses
	users      map[schema.ObjectKey]map[schema.ObjectKey]bool // object → pods that use it
	dirty      map[schema.ObjectKey]bool                      // to be looked at
	strays     map[schema.PodKey]int                          // pods it reported that nobody had assigned, and their bytes in the store
	strayBytes int
	written    time.Time     // when its report was last stored
	events     *rate.Limiter // of what it tells
}

func (g *Gateway) node(n schema.NodeName) *node {
	x := g.nodes[n]
	if x == nil {
		x = &node{
			name: n, generation: g.retired, dirty: map[schema.ObjectKey]bool{}, strays: map[schema.PodKey]int{},
			events: rate.NewLimiter(nodeEvents, nodeEventsBurst),
		}
		x.clear()
		g.nodes[n] = x
	}
	return x
}

func (n *node) clear() {
	n.sent = map[schema.ObjectKey]uint64{}
	n.uses = map[schema.ObjectKey]map[schema.ObjectKey]bool{}
	n.users = map[schema.ObjectKey]map[schema.ObjectKey]bool{}
	clear(n.dirty)
}

func podObject(p schema.PodKey) schema.ObjectKey {
	return schema.ObjectKey{Kind: schema.Pods, Namespace: p.Namespace, Name: p.Name}
}

func (g *Gateway) generationOf(n *node) kv.Generation {
	return kv.Generation{Epoch: g.epoch, Number: n.generation}
}

// follow takes in what changed in the views, and sends it. Changes stay with the
// subscriptions until both views are whole.
func (g *Gateway) follow(assignments, desired *kv.Changes) {
	if !g.whole() {
		return
	}
	touched := map[*node]bool{}
	for _, key := range assignments.Drain() {
		name, pod, err := kv.ParseAssignmentKey(key)
		if err != nil {
			continue // nobody here writes such keys
		}
		_, exists := g.o.Assignments.Get(key)
		g.speakers(name, pod, exists)
		if !exists && g.nodes[name] == nil {
			continue
		}
		n := g.node(name)
		n.dirty[podObject(pod)] = true
		touched[n] = true
	}
	for _, key := range desired.Drain() {
		k, err := kv.ParseObjectKey(key)
		if err != nil {
			continue
		}
		for name := range g.users[k] {
			n := g.node(name)
			n.dirty[k] = true
			touched[n] = true
		}
	}
	for n := range touched {
		g.update(n)
	}
	if l := g.o.Assignments.Losses() + g.o.Actual.Losses(); l != g.losses {
		g.losses = l
		g.askAgain()
	}
}

// askAgain has every node fetch its set and, with that, report all its pods
// anew: the store has lost some of what it held of them.
func (g *Gateway) askAgain() {
	for _, n := range g.nodes {
		n.synced = false
		n.generation++ // a gap
		g.greet(n)
	}
}

// speakers keeps who may speak of a pod.
func (g *Gateway) speakers(n schema.NodeName, p schema.PodKey, exists bool) {
	if exists {
		add(g.assigned, p, n)
		add(g.pods, n, p)
		return
	}
	drop(g.assigned, p, n)
	drop(g.pods, n, p)
}

// add and drop keep a map of sets in which no set is empty.
func add[K, V comparable](m map[K]map[V]bool, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]bool{}
	}
	m[k][v] = true
}

func drop[K, V comparable](m map[K]map[V]bool, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// update sends a node what became dirty. A node that has not fetched a set in
// this epoch is told to.
func (g *Gateway) update(n *node) {
	if !n.synced {
		clear(n.dirty)
		if now := time.Now(); now.Sub(n.greeted) > greetEvery {
			n.greeted = now
			g.greet(n)
		}
		return
	}
	var d kv.Delta
	for _, k := range sortedKeys(n.dirty) {
		if k.Kind == schema.Pods {
			g.updatePod(n, k, &d)
		}
	}
	// Pods have marked the objects that they begin or cease to use.
	for _, k := range sortedKeys(n.dirty) {
		if k.Kind != schema.Pods {
			g.updateObject(n, k, &d)
		}
	}
	clear(n.dirty)
	if len(d.Assignments)+len(d.ConfigMaps)+len(d.Secrets)+len(d.Remove) == 0 {
		return
	}
	d.Previous = g.generationOf(n)
	n.generation++
	d.Generation = g.generationOf(n)
	if err := g.door.Send(n.name, d); err != nil {
		// The connection's return greets the node, which finds the gap.
		g.faults.count(n.name, "delta not sent")
	}
}

func (g *Gateway) updatePod(n *node, k schema.ObjectKey, d *kv.Delta) {
	key := kv.AssignmentKey(n.name, schema.PodKey{Namespace: k.Namespace, Name: k.Name})
	e, ok := g.o.Assignments.Get(key)
	switch {
	case ok && n.sent[k] != e.Revision:
		n.sent[k] = e.Revision
		g.setUses(n, k, references(&e.Value.Pod))
		d.Assignments = append(d.Assignments, e.Value)
	case !ok && n.sent[k] != 0 && e.Revision == 0 && !g.o.Assignments.Lost(key):
		// With a revision it cannot be read, but is there. Lost, nobody deleted it.
		delete(n.sent, k)
		g.setUses(n, k, nil)
		d.Remove = append(d.Remove, k)
	}
}

// setUses keeps the two indices of what a pod uses, and marks the objects whose
// use began or ended.
func (g *Gateway) setUses(n *node, pod schema.ObjectKey, uses map[schema.ObjectKey]bool) {
	for k := range n.uses[pod] {
		if uses[k] {
			continue
		}
		drop(n.users, k, pod)
		if len(n.users[k]) == 0 {
			n.dirty[k] = true
			drop(g.users, k, n.name)
		}
	}
	for k := range uses {
		if len(n.users[k]) == 0 {
			n.dirty[k] = true
			add(g.users, k, n.name)
		}
		add(n.users, k, pod)
	}
	if len(uses) == 0 {
		delete(n.uses, pod)
	} else {
		n.uses[pod] = uses
	}
}

func (g *Gateway) updateObject(n *node, k schema.ObjectKey, d *kv.Delta) {
	e, ok := g.object(k)
	used := len(n.users[k]) > 0
	switch {
	case used && ok && n.sent[k] != e.Revision:
		if g.addObject(n, k, e, &d.Contents) {
			n.sent[k] = e.Revision
		}
	case n.sent[k] != 0 && (!used || !ok && e.Revision == 0 && !g.o.Desired.Lost(kv.ObjectKey(k))):
		delete(n.sent, k)
		d.Remove = append(d.Remove, k)
	}
}

// object is an object that pods use: of the repository, or one that is there
// without it.
func (g *Gateway) object(k schema.ObjectKey) (kv.Entry[schema.Object], bool) {
	e, ok := g.o.Desired.Get(kv.ObjectKey(k))
	if ok || e.Revision != 0 || g.o.Desired.Lost(kv.ObjectKey(k)) {
		return e, ok
	}
	if m := g.rootCA(k); m != nil {
		return kv.Entry[schema.Object]{Value: m, Revision: rootCARevision}, true
	}
	return e, false
}

// addObject puts an object into what a node is sent. A Secret that cannot be
// opened is left out: the pods that use it wait, and the others go on.
func (g *Gateway) addObject(n *node, k schema.ObjectKey, e kv.Entry[schema.Object], c *kv.Contents) bool {
	switch o := e.Value.(type) {
	case *corev1.ConfigMap:
		c.ConfigMaps = append(c.ConfigMaps, *o)
	case *corev1.Secret:
		plain, err := g.o.OpenSecret(o)
		if err != nil {
			g.faults.count(n.name, "secret cannot be opened")
			g.log.Debug("secret cannot be opened", "secret", k.String(), "error", err)
			return false
		}
		c.Secrets = append(c.Secrets, *plain)
	default:
		return false
	}
	return true
}

// sync answers with the whole set of a node, from which deltas go on.
func (g *Gateway) sync(r kv.Request) {
	if !g.whole() {
		g.answer(r, kv.AnswerError(fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)))
		return
	}
	n := g.node(r.Node)
	n.heard = time.Now()
	for pod := range n.uses {
		g.setUses(n, pod, nil)
	}
	n.clear()
	n.generation++
	n.synced = true
	set := kv.Set{Generation: g.generationOf(n)}
	for _, pod := range g.podsOf(r.Node) {
		k := podObject(pod)
		e, ok := g.o.Assignments.Get(kv.AssignmentKey(r.Node, pod))
		if !ok {
			continue
		}
		n.sent[k] = e.Revision
		g.setUses(n, k, references(&e.Value.Pod))
		set.Assignments = append(set.Assignments, e.Value)
	}
	for _, k := range sortedKeys(n.users) {
		if e, ok := g.object(k); ok && g.addObject(n, k, e, &set.Contents) {
			n.sent[k] = e.Revision
		}
	}
	clear(n.dirty)
	g.answer(r, kv.Answer{Set: &set})
}

// podsOf lists the pods assigned to a node, sorted.
func (g *Gateway) podsOf(n schema.NodeName) []schema.PodKey {
	return slices.SortedFunc(maps.Keys(g.pods[n]), func(a, b schema.PodKey) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// greet tells a node at which generation it should be, and nothing else: one
// that is elsewhere fetches its set.
func (g *Gateway) greet(n *node) {
	at := g.generationOf(n)
	if err := g.door.Send(n.name, kv.Delta{Generation: at, Previous: at}); err != nil {
		g.faults.count(n.name, "delta not sent")
	}
}

func (g *Gateway) greetAll() {
	if !g.o.Nodes.Connected() {
		return
	}
	for _, n := range g.nodes {
		g.greet(n)
	}
}

// forgetSilent frees what is kept of nodes that are not heard of.
func (g *Gateway) forgetSilent(now time.Time) {
	for name, n := range g.nodes {
		if now.Sub(n.heard) < nodeSilence || g.inbox.of(name) > 0 {
			continue
		}
		for pod := range n.uses {
			g.setUses(n, pod, nil)
		}
		n.clear()
		n.synced = false
		n.generation++ // a gap: should it still be there, it is to fetch its set
		if g.forgetStrays(n); len(n.strays) > 0 {
			continue // what it has brought into the store still counts
		}
		g.retired = max(g.retired, n.generation)
		delete(g.nodes, name)
	}
}

func sortedKeys[V any](m map[schema.ObjectKey]V) []schema.ObjectKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b schema.ObjectKey) int {
		switch {
		case a.Less(b):
			return -1
		case b.Less(a):
			return 1
		}
		return 0
	})
}
