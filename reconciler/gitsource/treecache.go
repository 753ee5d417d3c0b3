package gitsource

import (
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
)

// How much a treeCache remembers, in each of its two generations. A tree larger
// than this is listed correctly, only not faster the second time.
const (
	maxCachedEntries = 50_000
	maxCachedSizes   = 100_000
)

// A treeCache remembers directories by path and hash, and sizes by hash, so
// that listing a commit again costs what changed. What was not asked for while
// as much again came in is forgotten. Hashes name content, so nothing in here
// ever goes stale.
type treeCache struct {
	mu          sync.Mutex // guards what follows
	directories generations[directoryKey, *directory]
	sizes       generations[plumbing.Hash, int64]
}

type directoryKey struct {
	path string
	tree plumbing.Hash
}

func newTreeCache() *treeCache {
	return &treeCache{
		directories: generations[directoryKey, *directory]{limit: maxCachedEntries},
		sizes:       generations[plumbing.Hash, int64]{limit: maxCachedSizes},
	}
}

func (c *treeCache) directory(k directoryKey) (*directory, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.directories.get(k)
}

func (c *treeCache) putDirectory(k directoryKey, d *directory, entries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.directories.put(k, d, 1+entries)
}

func (c *treeCache) size(h plumbing.Hash) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sizes.get(h)
}

func (c *treeCache) putSize(h plumbing.Hash, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sizes.put(h, size, 1)
}

// generations is a map that forgets: the younger half fills up to the limit and
// then becomes the older one, whose predecessor is dropped.
type generations[K comparable, V any] struct {
	limit      int // of the costs in each half
	young, old map[K]aged[V]
	cost       int // of young
}

type aged[V any] struct {
	value V
	cost  int
}

func (g *generations[K, V]) get(k K) (V, bool) {
	if a, ok := g.young[k]; ok {
		return a.value, true
	}
	a, ok := g.old[k]
	if ok {
		delete(g.old, k)
		g.put(k, a.value, a.cost)
	}
	return a.value, ok
}

func (g *generations[K, V]) put(k K, v V, cost int) {
	if g.young == nil || g.cost+cost > g.limit {
		g.old, g.young, g.cost = g.young, map[K]aged[V]{}, 0
	}
	g.young[k] = aged[V]{v, cost}
	g.cost += cost
}
