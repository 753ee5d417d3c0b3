package cache

import (
	"errors"
	"fmt"
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
	"pgregory.net/rapid"

	"github.com/pawl-project/pawl/schema"
)

// state is what a client knows: the version of each object by its name.
type state map[string]uint64

func stateOf(c *Cache, namespace string) (state, uint64) {
	items, version := c.List(schema.Pods, namespace)
	s := state{}
	for _, i := range items {
		s[i.Key.String()] = i.Version
	}
	return s, version
}

// take plays an event on what the client knows, and refuses one that does not follow.
func (s state) take(e Event) error {
	k := e.Item.Key.String()
	old, known := s[k]
	switch {
	case e.Version != e.Item.Version || e.Item.Object().GetResourceVersion() != formatVersion(e.Version):
		return fmt.Errorf("%s: event of version %d with an item of %d", k, e.Version, e.Item.Version)
	case e.Type == watch.Added && (known || e.Old != nil):
		return fmt.Errorf("%s is added, and was there with %d", k, old)
	case e.Type != watch.Added && (!known || e.Old == nil || e.Old.Version != old):
		return fmt.Errorf("%s is %s, was %d, and the event says %v", k, e.Type, old, e.Old)
	case e.Type == watch.Deleted:
		delete(s, k)
	default:
		s[k] = e.Version
	}
	return nil
}

// A client lists, watches, is interrupted and resumes from where it was: from an
// event's version, a list's or a bookmark's. It sees exactly the changes, in the
// order of versions that only grow, or is told that its version is gone.
func TestWatchersSeeExactlyTheChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New(Options{Window: rapid.IntRange(1, 20).Draw(t, "window"), WindowBytes: rapid.SampledFrom([]int{5000, 1 << 20}).Draw(t, "bytes")})
		type client struct {
			namespace string
			knows     state
			version   uint64
			w         *Watcher
		}
		var clients []*client
		relist := func(x *client) { x.w = nil; x.knows, x.version = stateOf(c, x.namespace) }
		for _, ns := range []string{"", "a", "b"} {
			x := &client{namespace: ns}
			relist(x)
			clients = append(clients, x)
		}
		resume := func(x *client) bool {
			w, err := c.Watch(schema.Pods, x.namespace, x.version)
			if err != nil {
				if !errors.Is(err, ErrGone) || c.shelves[schema.Pods].ring.floor <= x.version {
					t.Fatalf("watch from %d: %v", x.version, err)
				}
				return false
			}
			x.w = w
			return true
		}
		read := func(x *client, most int) {
			if x.w == nil && !resume(x) {
				relist(x)
				return
			}
			for range most {
				e, wake, err := x.w.look()
				if errors.Is(err, ErrGone) {
					relist(x)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if wake != nil {
					if x.w.Version() != c.Version() {
						t.Fatalf("nothing to come, and only at %d of %d", x.w.Version(), c.Version())
					}
					if want, _ := stateOf(c, x.namespace); !maps.Equal(x.knows, want) {
						t.Fatalf("client of %q knows %v, it is %v", x.namespace, x.knows, want)
					}
					return
				}
				if e.Version <= x.version {
					t.Fatalf("version %d after %d", e.Version, x.version)
				}
				if err := x.knows.take(e); err != nil {
					t.Fatal(err)
				}
				x.version = e.Version
			}
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			k := key(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name"))
			x := rapid.SampledFrom(clients).Draw(t, "client")
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				c.Put(k, pod(k.Namespace, k.Name, fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "host"))), uint64(rapid.IntRange(0, 200).Draw(t, "version")))
			case 2:
				c.Delete(k, uint64(rapid.IntRange(0, 200).Draw(t, "version")))
			case 3:
				read(x, rapid.IntRange(1, 5).Draw(t, "events"))
			case 4: // interrupted after an event
				x.w = nil
			case 5: // interrupted after a bookmark
				if x.w != nil {
					x.version, x.w = x.w.Version(), nil
				}
			case 7:
				c.Sweep()
			case 6:
				c.Put(schema.ObjectKey{Kind: schema.Services, Namespace: "a", Name: k.Name}, newService(k.Name), 0)
			}
		}
		for _, x := range clients {
			read(x, 1000)
		}
	})
}

// The sorted list and the books are right after whatever happened.
func TestListsStaySorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New(Options{})
		want := map[schema.ObjectKey]bool{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			k := key(rapid.StringMatching(`[a-c-]`).Draw(t, "namespace"), rapid.StringMatching(`[a-c.-]{1,2}`).Draw(t, "name"))
			if rapid.Bool().Draw(t, "there") {
				put(c, k.Namespace, k.Name, "n", 0)
				want[k] = true
			} else {
				c.Delete(k, 0)
				delete(want, k)
			}
		}
		items, _ := c.List(schema.Pods, "")
		weight := 0
		for n, i := range items {
			if !want[i.Key] || n > 0 && !items[n-1].Key.Less(i.Key) {
				t.Fatalf("item %d is %s", n, i.Key)
			}
			weight += i.weight
			if got, ok := c.Get(i.Key); !ok || got != i {
				t.Fatalf("%s is not found", i.Key)
			}
		}
		if len(items) != len(want) || weight != c.held {
			t.Fatalf("%d items of %d, weight %d of %d", len(items), len(want), c.held, weight)
		}
		for _, ns := range []string{"a", "b", "c", "-"} {
			part, _ := c.List(schema.Pods, ns)
			n := 0
			for k := range want {
				if k.Namespace == ns {
					n++
				}
			}
			if len(part) != n {
				t.Fatalf("%d items in %s, want %d", len(part), ns, n)
			}
		}
	})
}
