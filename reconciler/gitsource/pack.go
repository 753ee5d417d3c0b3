package gitsource

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

const (
	// maxDeltaChain bounds the steps from an object to its base. Git itself
	// makes chains of at most 50, or 250 when told to be aggressive.
	maxDeltaChain = 4096
	// maxDeltaBase bounds each object on such a chain, in bytes: a small file
	// may be written as a delta of a very large one.
	maxDeltaBase = 64 << 20
	// idxSpan is how many names of an index are read at once to end a search.
	idxSpan = 256
)

var errBadIndex = errors.New("malformed pack index")

// A pack is one pack file with its index. Only the fan-out table is held in
// memory, so that a repository's size does not decide the daemon's. It is used
// under its objectDir's mutex.
type pack struct {
	base   string      // path without .idx and .pack
	fanout [256]uint32 // fanout[b]: how many names start with a byte <= b

	// Nil while the pack is closed; objectDir keeps few open.
	idx     *os.File
	file    *os.File
	scanner *packfile.Scanner
}

// openPack reads the fan-out table of base.idx.
func openPack(base string) (*pack, error) {
	p := &pack{base: base}
	f, err := os.Open(base + ".idx")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var head [8 + 1024]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return nil, fmt.Errorf("%s.idx: %w", base, err)
	}
	if !bytes.Equal(head[:8], []byte{0xff, 't', 'O', 'c', 0, 0, 0, 2}) {
		return nil, fmt.Errorf("%s.idx: %w: want version 2", base, errBadIndex)
	}
	before := uint32(0)
	for i := range p.fanout {
		p.fanout[i] = binary.BigEndian.Uint32(head[8+4*i:])
		if p.fanout[i] < before {
			return nil, fmt.Errorf("%s.idx: %w", base, errBadIndex)
		}
		before = p.fanout[i]
	}
	return p, nil
}

func (p *pack) close() {
	if p.idx != nil {
		p.idx.Close()
		p.file.Close()
	}
	p.idx, p.file, p.scanner = nil, nil, nil
}

// open opens the files when they are closed.
func (p *pack) open() error {
	if p.idx != nil {
		return nil
	}
	idx, err := os.Open(p.base + ".idx")
	if err != nil {
		return err
	}
	file, err := os.Open(p.base + ".pack")
	if err != nil {
		idx.Close()
		return err
	}
	p.idx, p.file, p.scanner = idx, file, packfile.NewScanner(file)
	return nil
}

// mayHold says, without reading, whether the pack can hold h.
func (p *pack) mayHold(h plumbing.Hash) bool {
	low, high := p.bucket(h)
	return low < high
}

// bucket returns the range of positions of names that start with h's first byte.
func (p *pack) bucket(h plumbing.Hash) (low, high int64) {
	if h[0] > 0 {
		low = int64(p.fanout[h[0]-1])
	}
	return low, int64(p.fanout[h[0]])
}

// find returns the offset of h in the open pack, or -1.
func (p *pack) find(h plumbing.Hash) (int64, error) {
	const names = 8 + 1024
	low, high := p.bucket(h)
	var name [20]byte
	for high-low > idxSpan {
		middle := (low + high) / 2
		if _, err := p.idx.ReadAt(name[:], names+20*middle); err != nil {
			return -1, fmt.Errorf("%s.idx: %w", p.base, err)
		}
		switch c := bytes.Compare(name[:], h[:]); {
		case c == 0:
			return p.offset(middle)
		case c < 0:
			low = middle + 1
		default:
			high = middle
		}
	}
	span := make([]byte, 20*(high-low))
	if _, err := p.idx.ReadAt(span, names+20*low); err != nil {
		return -1, fmt.Errorf("%s.idx: %w", p.base, err)
	}
	n := int(high - low)
	at := func(i int) []byte { return span[20*i : 20*i+20] }
	i := sort.Search(n, func(i int) bool { return bytes.Compare(at(i), h[:]) >= 0 })
	if i == n || !bytes.Equal(at(i), h[:]) {
		return -1, nil
	}
	return p.offset(low + int64(i))
}

// offset reads the offset table: 4 bytes each, or a place in a table of 8 bytes.
func (p *pack) offset(position int64) (int64, error) {
	count := int64(p.fanout[255])
	table := 8 + 1024 + 24*count // after the names and their checksums
	var raw [8]byte
	if _, err := p.idx.ReadAt(raw[:4], table+4*position); err != nil {
		return -1, fmt.Errorf("%s.idx: %w", p.base, err)
	}
	small := binary.BigEndian.Uint32(raw[:4])
	if small&(1<<31) == 0 {
		return int64(small), nil
	}
	large := int64(small &^ (1 << 31))
	if _, err := p.idx.ReadAt(raw[:], table+4*count+8*large); err != nil {
		return -1, fmt.Errorf("%s.idx: %w", p.base, err)
	}
	offset := binary.BigEndian.Uint64(raw[:])
	if offset > 1<<62 {
		return -1, fmt.Errorf("%s.idx: %w", p.base, errBadIndex)
	}
	return int64(offset), nil
}

// size returns the size of the object at offset, inflating at most its delta.
func (p *pack) size(offset int64) (int64, error) {
	header, err := p.scanner.SeekObjectHeader(offset)
	if err != nil {
		return 0, fmt.Errorf("%s.pack: %w", p.base, err)
	}
	if !header.Type.IsDelta() {
		return header.Length, nil
	}
	delta, err := p.inflate(header)
	if err != nil {
		return 0, err
	}
	return deltaTarget(delta)
}

// inflate reads the object (or delta) whose header was just read.
func (p *pack) inflate(header *packfile.ObjectHeader) ([]byte, error) {
	if header.Length > maxDeltaBase {
		return nil, tooLarge{size: header.Length, limit: maxDeltaBase}
	}
	content := bytes.NewBuffer(make([]byte, 0, header.Length+bytes.MinRead))
	n, _, err := p.scanner.NextObject(content)
	if err == nil && n != header.Length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("%s.pack at %d: %w", p.base, header.Offset, err)
	}
	return content.Bytes(), nil
}

// read returns the object at offset when it has at most limit bytes. It goes
// down the chain of deltas to an object that is whole (or cached), then applies
// the deltas on the way back, so that memory does not grow with the chain.
func (p *pack) read(offset, limit int64, bases *baseCache) (plumbing.ObjectType, []byte, error) {
	var chain []int64 // offsets of deltas, the wanted object first
	var kind plumbing.ObjectType
	var content []byte
	for at := offset; ; {
		if base, ok := bases.get(p.base, at); ok {
			kind, content = base.kind, base.content
			break
		}
		header, err := p.scanner.SeekObjectHeader(at)
		if err != nil {
			return 0, nil, fmt.Errorf("%s.pack: %w", p.base, err)
		}
		if !header.Type.IsDelta() {
			if len(chain) == 0 && header.Length > limit {
				return 0, nil, tooLarge{size: header.Length, limit: limit}
			}
			kind = header.Type
			if content, err = p.inflate(header); err != nil {
				return 0, nil, err
			}
			bases.put(p.base, at, base{kind, content})
			break
		}
		if chain = append(chain, at); len(chain) > maxDeltaChain {
			return 0, nil, fmt.Errorf("%s.pack at %d: more than %d deltas", p.base, offset, maxDeltaChain)
		}
		if at, err = p.deltaBase(header); err != nil {
			return 0, nil, err
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		bound := int64(maxDeltaBase)
		if i == 0 {
			bound = limit
		}
		var err error
		if content, err = p.patch(chain[i], content, bound); err != nil {
			return 0, nil, err
		}
		bases.put(p.base, chain[i], base{kind, content})
	}
	if int64(len(content)) > limit {
		return 0, nil, tooLarge{size: int64(len(content)), limit: limit}
	}
	return kind, bytes.Clone(content), nil // the cache keeps its own
}

// deltaBase returns the offset of what a delta is applied to. Git completes
// packs before it keeps them, so the base is in the same pack.
func (p *pack) deltaBase(header *packfile.ObjectHeader) (int64, error) {
	if header.Type == plumbing.OFSDeltaObject {
		return header.OffsetReference, nil
	}
	at, err := p.find(header.Reference)
	if err == nil && at < 0 {
		err = fmt.Errorf("%s.pack: base %s of a delta: %w", p.base, header.Reference, plumbing.ErrObjectNotFound)
	}
	return at, err
}

// patch applies the delta at offset to source when the result has at most bound bytes.
func (p *pack) patch(offset int64, source []byte, bound int64) ([]byte, error) {
	header, err := p.scanner.SeekObjectHeader(offset)
	if err != nil {
		return nil, fmt.Errorf("%s.pack: %w", p.base, err)
	}
	delta, err := p.inflate(header)
	if err != nil {
		return nil, err
	}
	target, err := deltaTarget(delta)
	if err != nil {
		return nil, err
	}
	if target > bound {
		return nil, tooLarge{size: target, limit: bound}
	}
	result, err := packfile.PatchDelta(source, delta)
	if err != nil {
		return nil, fmt.Errorf("%s.pack at %d: %w", p.base, offset, err)
	}
	return result, nil
}

// deltaTarget reads the size of a delta's result: the second of two numbers of
// seven bits a byte.
func deltaTarget(delta []byte) (int64, error) {
	_, n := binary.Uvarint(delta)
	if n <= 0 {
		return 0, packfile.ErrInvalidDelta
	}
	size, m := binary.Uvarint(delta[n:])
	if m <= 0 || size > 1<<62 {
		return 0, packfile.ErrInvalidDelta
	}
	return int64(size), nil
}

// packNames lists the packs of an object directory, without their endings.
func packNames(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir + "/pack")
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".idx"); ok && strings.HasPrefix(name, "pack-") {
			names[dir+"/pack/"+name] = true
		}
	}
	return names, nil
}
