package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"golang.org/x/time/rate"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

const (
	// usageTTL is how long a node's word on what it takes counts: four of an
	// agent's periods.
	usageTTL = time.Minute
	// usageEvery and usageBurst bound how often a node is heard on it.
	usageEvery = 5 * time.Second
	usageBurst = 4
	// usageBytes bounds what of all nodes is in the store; what is beyond is known
	// to the API all the same.
	usageBytes = 128 << 20
	// usagePods bounds what one node may tell of, before it is looked at whether
	// the pods are its own.
	usagePods = 5000
)

// usages is what nodes take, the newest word of each. The clerk puts in, the
// API reads, and one goroutine writes it to the store for whoever looks there.
type usages struct {
	wake chan struct{} // one token: something is not stored

	mu    sync.Mutex
	nodes map[schema.NodeName]*usage
	dirty map[schema.NodeName]bool
	bytes int // of all that is to be in the store
}

type usage struct {
	told  *schema.NodeUsage // never changed
	heard time.Time
	text  []byte // to be stored; nil: stored already, or beyond the bound
	size  int    // that it counts for in bytes
	rate  *rate.Limiter
}

func newUsages() *usages {
	return &usages{wake: make(chan struct{}, 1), nodes: map[schema.NodeName]*usage{}, dirty: map[schema.NodeName]bool{}}
}

// Usage is what a node takes by its newest word; nil when there is none that
// still counts. It is shared and never changed.
func (g *Gateway) Usage(n schema.NodeName) *schema.NodeUsage { return g.usages.get(n, time.Now()) }

func (u *usages) get(n schema.NodeName, now time.Time) *schema.NodeUsage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if x := u.nodes[n]; x != nil && x.told != nil && now.Sub(x.heard) < usageTTL {
		return x.told
	}
	return nil
}

// allow says whether the node may be heard again by now.
func (u *usages) allow(n schema.NodeName, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.nodes[n]
	if x == nil {
		x = &usage{rate: rate.NewLimiter(rate.Every(usageEvery), usageBurst)}
		u.nodes[n] = x
	}
	x.heard = now
	return x.rate.AllowN(now, 1)
}

// put makes told the newest word of its node. It says whether there is room for
// it in the store.
func (u *usages) put(told *schema.NodeUsage, text []byte) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.nodes[told.Node]
	x.told, x.text = told, nil
	u.bytes -= x.size
	x.size = 0
	if u.bytes+len(text) > usageBytes {
		return false
	}
	x.text, x.size = text, len(text)
	u.bytes += x.size
	u.dirty[told.Node] = true
	select {
	case u.wake <- struct{}{}:
	default:
	}
	return true
}

// sweep forgets the nodes that are silent.
func (u *usages) sweep(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n, x := range u.nodes {
		if now.Sub(x.heard) >= usageTTL {
			u.bytes -= x.size
			delete(u.nodes, n)
			delete(u.dirty, n)
		}
	}
}

// next takes out a word that is not stored; nil when there is none.
func (u *usages) next() (n schema.NodeName, text []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.dirty {
		delete(u.dirty, n)
		x := u.nodes[n]
		text, x.text = x.text, nil
		return n, text
	}
	return "", nil
}

// takeUsage takes in what a node says that it takes. It is answered at once: it
// is not worth to be asked for again.
func (g *Gateway) takeUsage(r kv.Request) {
	now := time.Now()
	if !g.usages.allow(r.Node, now) {
		g.refuse(r, "too much usage", fmt.Errorf("node %s tells what it takes more often than every %s: %w", r.Node, usageEvery, schema.ErrUnavailable))
		return
	}
	told, err := kv.DecodeUsage(r.Data)
	if err == nil {
		err = saneUsage(r.Node, told)
	}
	if err != nil {
		g.refuse(r, "usage cannot be read", err)
		return
	}
	if !g.whole() {
		g.answer(r, kv.AnswerError(fmt.Errorf("the store is not read whole yet: %w", schema.ErrUnavailable)))
		return
	}
	g.ownUsage(told)
	text, err := json.Marshal(told)
	if err != nil {
		g.refuse(r, "usage cannot be read", fmt.Errorf("usage of node %s: %w: %w", r.Node, err, schema.ErrRefused))
		return
	}
	if !g.usages.put(told, text) {
		g.faults.count(r.Node, "no room for usage in the store")
	}
	g.answer(r, kv.Answer{})
}

// saneUsage refuses what no agent would send.
func saneUsage(n schema.NodeName, told *schema.NodeUsage) error {
	switch {
	case told.Node != n:
		return fmt.Errorf("usage names node %.80q: %w", string(told.Node), schema.ErrRefused)
	case len(told.Pods) > usagePods:
		return fmt.Errorf("usage of %d pods in one request, at most %d: %w", len(told.Pods), usagePods, schema.ErrRefused)
	case told.Window <= 0 || !saneNumbers(told.Usage):
		return fmt.Errorf("usage of node %s: no such numbers: %w", n, schema.ErrRefused)
	}
	return nil
}

// saneNumbers says whether the numbers can be told to clients, who count in int64.
func saneNumbers(u schema.Usage) bool { return u.CPU <= math.MaxInt64 && u.Memory <= math.MaxInt64 }

// ownUsage leaves of a node's word what is about containers of pods that are
// assigned to it, in order. The rest may be late: a pod that has just gone.
func (g *Gateway) ownUsage(told *schema.NodeUsage) {
	told.Pods = slices.DeleteFunc(told.Pods, func(p schema.PodUsage) bool {
		assigned, ok := g.o.Assignments.Get(kv.AssignmentKey(told.Node, p.Key()))
		return !ok || assigned.Value.Pod.UID != p.UID
	})
	slices.SortStableFunc(told.Pods, comparePods)
	told.Pods = slices.CompactFunc(told.Pods, func(a, b schema.PodUsage) bool { return a.UID == b.UID })
	for i := range told.Pods {
		p := &told.Pods[i]
		if p.Storage != nil && *p.Storage > math.MaxInt64 {
			p.Storage = nil
		}
		assigned, _ := g.o.Assignments.Get(kv.AssignmentKey(told.Node, p.Key()))
		names := containerNames(&assigned.Value.Pod)
		p.Containers = slices.DeleteFunc(p.Containers, func(c schema.ContainerUsage) bool {
			mine := names[c.Name] && c.Window >= 0 && saneNumbers(c.Usage)
			delete(names, c.Name) // once
			return !mine
		})
	}
}

func comparePods(a, b schema.PodUsage) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func containerNames(p *corev1.Pod) map[string]bool {
	names := map[string]bool{}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		names[c.Name] = true
	}
	return names
}

// keepUsage stores what nodes take until ctx is done. What cannot be stored is
// dropped: the next word comes soon.
func (g *Gateway) keepUsage(ctx context.Context) error {
	leases := g.o.Store.NewUsages()
	sweep := time.NewTicker(usageTTL)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-sweep.C:
			g.usages.sweep(now)
			leases.Keep(g.usages.known)
			continue
		case <-g.usages.wake:
		}
		for n, text := g.usages.next(); n != "" && ctx.Err() == nil; n, text = g.usages.next() {
			if text == nil {
				continue
			}
			if err := leases.Renew(ctx, n, text, usageTTL); err != nil && ctx.Err() == nil {
				g.faults.count(n, "usage not stored")
			}
		}
	}
}

// known says whether there is a word of the node.
func (u *usages) known(n schema.NodeName) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.nodes[n] != nil
}
