package gateway

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func usageOf(n schema.NodeName, pods ...string) *schema.NodeUsage {
	u := &schema.NodeUsage{Node: n, Time: time.Now().UTC(), Window: 15 * time.Second, Usage: schema.Usage{CPU: 5e8, Memory: 1 << 30}}
	for _, p := range pods {
		u.Pods = append(u.Pods, schema.PodUsage{Namespace: "default", Name: p, UID: pod(p).UID, Containers: []schema.ContainerUsage{{Name: "main", Usage: schema.Usage{CPU: 1e8, Memory: 1 << 20}}}})
	}
	return u
}

// names are the pods and containers that a node tells of.
func names(u *schema.NodeUsage) string {
	if u == nil {
		return "nothing"
	}
	var all []string
	for _, p := range u.Pods {
		s := p.Name
		for _, c := range p.Containers {
			s += "/" + c.Name
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// TestNodesTellTheirUsage: what is about their own pods, in order, in memory and
// in the store; and nothing else.
func TestNodesTellTheirUsage(t *testing.T) {
	c := newCluster(t)
	c.assign("n1", pod("web"))
	c.assign("n1", pod("api"))
	c.assign("n2", pod("theirs"))
	eventually(t, "the assignments are seen", func() bool { return c.assignments.Len() == 3 })
	a := c.agent("n1")
	told := usageOf("n1", "web", "theirs", "nosuch", "api", "web")
	told.Pods[0].Containers = append(told.Pods[0].Containers, told.Pods[0].Containers[0], schema.ContainerUsage{Name: "nosuch"})
	reborn := usageOf("n1", "api").Pods[0]
	reborn.UID = "another"
	told.Pods = append(told.Pods, reborn)
	if err := a.ReportUsage(t.Context(), told); err != nil {
		t.Fatal(err)
	}
	if got := names(c.gateway.Usage("n1")); got != "api/main web/main" {
		t.Errorf("kept: %s", got)
	}
	if got := names(c.gateway.Usage("n2")); got != "nothing" {
		t.Errorf("of the other node: %s", got)
	}
	var stored *schema.NodeUsage
	eventually(t, "it is stored", func() bool {
		l, err := c.store.GetLease(t.Context(), kv.UsageKey("n1"))
		if err != nil {
			return false
		}
		stored, err = kv.DecodeUsage(l.Value)
		return err == nil
	})
	if names(stored) != "api/main web/main" || stored.CPU != 5e8 {
		t.Errorf("stored: %+v", stored)
	}
	for what, bad := range map[string]func(*schema.NodeUsage){
		"another node": func(u *schema.NodeUsage) { u.Node = "n2" },
		"no window":    func(u *schema.NodeUsage) { u.Window = 0 },
		"huge":         func(u *schema.NodeUsage) { u.Memory = math.MaxUint64 },
	} {
		u := usageOf("n1")
		bad(u)
		if err := saneUsage("n1", u); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if err := saneUsage("n1", &schema.NodeUsage{Node: "n1", Window: 1, Pods: make([]schema.PodUsage, usagePods+1)}); err == nil {
		t.Error("too many pods are taken")
	}
	// One that tells too often is not heard, and is not forgotten for it.
	var last error
	for i := 0; last == nil && i < 20*usageBurst; i++ { // some are allowed while this goes on
		last = a.ReportUsage(t.Context(), usageOf("n1", "web"))
	}
	if last == nil || names(c.gateway.Usage("n1")) != "web/main" {
		t.Errorf("error %v, kept %s", last, names(c.gateway.Usage("n1")))
	}
}

func TestUsageIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsages()
		u.allow("n1", time.Now())
		u.put(usageOf("n1", "web"), []byte("x"))
		if n, text := u.next(); n != "n1" || string(text) != "x" {
			t.Errorf("to be stored: %s %s", n, text)
		}
		if n, _ := u.next(); n != "" {
			t.Errorf("to be stored again: %s", n)
		}
		time.Sleep(usageTTL - 1)
		if u.get("n1", time.Now()) == nil {
			t.Error("forgotten too soon")
		}
		time.Sleep(time.Nanosecond)
		if u.get("n1", time.Now()) != nil {
			t.Error("not forgotten")
		}
		u.sweep(time.Now())
		if len(u.nodes) != 0 || u.bytes != 0 || u.known("n1") {
			t.Errorf("left: %+v", u)
		}
	})
}

// TestUsageIsBounded: what does not fit into the store is served all the same.
func TestUsageIsBounded(t *testing.T) {
	u := newUsages()
	text := make([]byte, 1<<20)
	now := time.Now()
	for i := range usageBytes/len(text) + 1 {
		n := schema.NodeName(fmt.Sprint("n", i))
		u.allow(n, now)
		if fits := u.put(usageOf(n), text); fits != (i < usageBytes/len(text)) {
			t.Fatalf("node %d fits: %t", i, fits)
		}
		if u.get(n, now) == nil {
			t.Errorf("node %d is not served", i)
		}
	}
}
