package gitsource

import "github.com/go-git/go-git/v5/plumbing"

// baseCacheBytes bounds what a baseCache holds: enough for the neighbours of
// the file that is read, and nothing to speak of while the daemon is idle.
const baseCacheBytes = 4 << 20

// A base is an object of a pack that others may be deltas of. Its content is
// shared and read-only.
type base struct {
	kind    plumbing.ObjectType
	content []byte
}

// A baseCache remembers objects of packs by their place. When it is full it
// forgets everything: files are read in the order of paths, once.
type baseCache struct {
	held  map[basePlace]base
	bytes int
}

type basePlace struct {
	pack   string
	offset int64
}

func (c *baseCache) get(pack string, offset int64) (base, bool) {
	b, ok := c.held[basePlace{pack, offset}]
	return b, ok
}

func (c *baseCache) put(pack string, offset int64, b base) {
	size := len(b.content) + 128
	if size > baseCacheBytes/4 {
		return
	}
	if c.held == nil || c.bytes+size > baseCacheBytes {
		c.held, c.bytes = map[basePlace]base{}, 0
	}
	c.held[basePlace{pack, offset}] = b
	c.bytes += size
}
