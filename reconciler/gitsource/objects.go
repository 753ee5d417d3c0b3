package gitsource

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"

	"github.com/pawl-project/pawl/schema"
)

// maxOpenPacks is how many packs of one directory stay open between reads.
const maxOpenPacks = 8

// tooLarge is the error of an object above a limit. The author of the commit
// acts: it wraps schema.ErrRefused.
type tooLarge struct{ size, limit int64 }

func (e tooLarge) Error() string {
	return fmt.Sprintf("%d bytes, the limit is %d", e.size, e.limit)
}

func (e tooLarge) Unwrap() error { return schema.ErrRefused }

// An objectDir reads one directory of Git objects, loose and packed, which
// git(1) changes underneath: it holds nothing that a look at the disk cannot
// refresh.
type objectDir struct {
	dir string

	mu    sync.Mutex // guards what follows
	packs []*pack
	fresh []*pack // those that are open, the oldest first
	bases baseCache
}

// size returns the size of h in bytes, without reading its content.
func (d *objectDir) size(h plumbing.Hash) (int64, error) {
	f, err := d.openLoose(h)
	if err == nil {
		defer f.Close()
		r, err := objfile.NewReader(f)
		if err != nil {
			return 0, fmt.Errorf("object %s: %w", h, err)
		}
		defer r.Close()
		_, size, err := r.Header()
		if err != nil {
			return 0, fmt.Errorf("object %s: %w", h, err)
		}
		return size, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, offset, err := d.findPacked(h)
	if err != nil {
		return 0, err
	}
	return p.size(offset)
}

// read returns h when it has at most limit bytes.
func (d *objectDir) read(h plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	f, err := d.openLoose(h)
	if err == nil {
		defer f.Close()
		kind, content, err := readLoose(f, h, limit)
		if err != nil {
			return 0, nil, fmt.Errorf("object %s: %w", h, err)
		}
		return kind, content, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return 0, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, offset, err := d.findPacked(h)
	if err != nil {
		return 0, nil, err
	}
	kind, content, err := p.read(offset, limit, &d.bases)
	if err != nil {
		return 0, nil, fmt.Errorf("object %s: %w", h, err)
	}
	return kind, content, nil
}

func (d *objectDir) openLoose(h plumbing.Hash) (*os.File, error) {
	name := h.String()
	return os.Open(d.dir + "/" + name[:2] + "/" + name[2:])
}

// readLoose reads a loose object and checks it against its name: a power cut
// can leave half a file where nobody asked for durability.
func readLoose(f io.Reader, h plumbing.Hash, limit int64) (plumbing.ObjectType, []byte, error) {
	r, err := objfile.NewReader(f)
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	kind, size, err := r.Header()
	if err != nil {
		return 0, nil, err
	}
	if size > limit {
		return 0, nil, tooLarge{size: size, limit: limit}
	}
	if size < 0 {
		return 0, nil, objfile.ErrNegativeSize
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return 0, nil, err
	}
	if got := r.Hash(); got != h {
		return 0, nil, fmt.Errorf("damaged: its content has the hash %s", got)
	}
	return kind, content, nil
}

// findPacked returns the open pack that holds h. With d.mu held.
func (d *objectDir) findPacked(h plumbing.Hash) (*pack, int64, error) {
	for _, p := range d.packs {
		if !p.mayHold(h) {
			continue
		}
		if err := d.use(p); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // repacked away; a refresh finds where to
			}
			return nil, 0, err
		}
		offset, err := p.find(h)
		if err != nil {
			return nil, 0, err
		}
		if offset >= 0 {
			return p, offset, nil
		}
	}
	return nil, 0, plumbing.ErrObjectNotFound
}

// use opens p and closes the pack that was opened longest ago when there are
// too many. With d.mu held.
func (d *objectDir) use(p *pack) error {
	if p.idx != nil {
		return nil
	}
	if err := p.open(); err != nil {
		return err
	}
	if d.fresh = append(d.fresh, p); len(d.fresh) > maxOpenPacks {
		d.fresh[0].close()
		d.fresh = append(d.fresh[:0], d.fresh[1:]...)
	}
	return nil
}

// refresh looks at the disk for packs that came and went.
func (d *objectDir) refresh() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := packNames(d.dir)
	if err != nil {
		return err
	}
	var kept []*pack
	for _, p := range d.packs {
		if !names[p.base] {
			d.forget(p)
			continue
		}
		delete(names, p.base)
		kept = append(kept, p)
	}
	d.packs = kept
	for base := range names {
		p, err := openPack(base)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went again
		}
		if err != nil {
			return err
		}
		d.packs = append(d.packs, p)
	}
	return nil
}

func (d *objectDir) forget(p *pack) {
	p.close()
	d.bases = baseCache{}
	for i, open := range d.fresh {
		if open == p {
			d.fresh = append(d.fresh[:i], d.fresh[i+1:]...)
			return
		}
	}
}

// close closes the files. A later read opens them again.
func (d *objectDir) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.fresh {
		p.close()
	}
	d.fresh, d.bases = nil, baseCache{}
}
