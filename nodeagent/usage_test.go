package nodeagent

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// counters makes Counters of "pod/container#attempt cpu-ms [started-at-s]".
func counters(start time.Time, at time.Duration, machine uint64, lines ...string) Counters {
	c := Counters{At: start.Add(at), Machine: Counter{machine * 1e6, 1 << 30}}
	for _, line := range lines {
		f := strings.Fields(line)
		id := f[0]
		name, _, _ := strings.Cut(id, "#")
		pod, container, _ := strings.Cut(name, "/")
		var cpu uint64
		var began float64 = -3600
		fmt.Sscan(f[1], &cpu)
		if len(f) > 2 {
			fmt.Sscan(f[2], &began)
		}
		c.Containers = append(c.Containers, ContainerCounter{
			ID: id, UID: types.UID("uid-" + pod), Pod: schema.PodKey{Namespace: "default", Name: pod}, Name: container,
			StartedAt: start.Add(time.Duration(began * float64(time.Second))), Counter: Counter{cpu * 1e6, 1 << 20},
		})
	}
	return c
}

// told is usage in millicores on one line.
func told(u *schema.NodeUsage) string {
	if u == nil {
		return "nothing"
	}
	s := fmt.Sprintf("%s node %dm", u.Window, u.CPU/1e6)
	for _, p := range u.Pods {
		for _, c := range p.Containers {
			s += fmt.Sprintf(", %s/%s %dm", p.Name, c.Name, c.CPU/1e6)
			if c.Window != 0 {
				s += " in " + c.Window.String()
			}
		}
	}
	return s
}

func TestRates(t *testing.T) {
	start := time.Now()
	var r rater
	for _, c := range []struct {
		what string
		c    Counters
		want string
	}{
		{"the first look has nothing to compare with", counters(start, 0, 1000, "web/main#0 500"), "nothing"},
		{"too soon", counters(start, 500*time.Millisecond, 1500, "web/main#0 900"), "nothing"},
		{"two seconds", counters(start, 2*time.Second, 2000, "web/main#0 900"), "2s node 500m, web/main 200m"},
		{"one that was started since", counters(start, 17*time.Second, 17000, "web/side#0 400 13", "web/main#0 2400"), "15s node 1000m, web/main 100m, web/side 100m in 4s"},
		{"one that is too young, one that ended", counters(start, 32*time.Second, 17000, "api/main#0 800 31.5", "web/side#0 1900"), "15s node 0m, web/side 100m"},
		{"a restart is another container", counters(start, 47*time.Second, 32000, "api/main#1 1000 37", "web/side#0 1900"), "15s node 1000m, api/main 100m in 10s, web/side 0m"},
		{"a counter that went back", counters(start, 62*time.Second, 31000, "api/main#1 900", "web/side#0 3400"), "15s node 0m, web/side 100m"},
		{"one that ran all along, and the last look missed", counters(start, 77*time.Second, 46000, "old/main#0 99999999"), "15s node 1000m"},
		{"a clock that went back", counters(start, 60*time.Second, 46000, "old/main#0 99999999"), "nothing"},
		{"which is looked at as if it had not", counters(start, 92*time.Second, 61000, "old/main#0 100001499"), "15s node 1000m, old/main 100m"},
	} {
		if got := told(r.next(c.c)); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.what, got, c.want)
		}
	}
}

func TestRatesAreOrdered(t *testing.T) {
	start := time.Now()
	lines := []string{"b/y#0 1", "a/z#0 1", "b/x#0 1", "a/a#0 1"}
	var r rater
	r.next(counters(start, 0, 0, lines...))
	if got, want := told(r.next(counters(start, time.Second, 0, lines...))), "1s node 0m, a/a 0m, a/z 0m, b/x 0m, b/y 0m"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
