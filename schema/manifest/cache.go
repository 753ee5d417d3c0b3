package manifest

import (
	"container/list"
	"sync"
)

// How much the cache may hold: enough for several states of the largest tree
// that is sensible, counted in bytes of source text.
const (
	cacheEntries = 2 * maxObjects
	cacheBytes   = 96 << 20
)

// A cache remembers what files gave, by path and hash of content, the least
// recently used ones dropped first. The definitions are compiled into the
// binary, so their hash need not be in the key: the cache does not outlive it.
type cache struct {
	mu      sync.Mutex
	entries map[cacheKey]*list.Element
	order   *list.List // of *cacheEntry, most recently used first
	bytes   int64
}

type cacheKey struct{ path, blob string }

type cacheEntry struct {
	key    cacheKey
	result *fileResult
	bytes  int64
}

func newCache() *cache {
	return &cache{entries: map[cacheKey]*list.Element{}, order: list.New()}
}

func (c *cache) get(path, blob string) *fileResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[cacheKey{path, blob}]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry).result
}

func (c *cache) put(path, blob string, r *fileResult, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := cacheKey{path, blob}
	if e, ok := c.entries[key]; ok {
		c.drop(e)
	}
	const overhead = 512 // of an entry, whatever its text
	entry := &cacheEntry{key: key, result: r, bytes: size + overhead}
	c.entries[key] = c.order.PushFront(entry)
	c.bytes += entry.bytes
	for (c.bytes > cacheBytes || c.order.Len() > cacheEntries) && c.order.Len() > 1 {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	entry := c.order.Remove(e).(*cacheEntry)
	delete(c.entries, entry.key)
	c.bytes -= entry.bytes
}
