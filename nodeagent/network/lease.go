package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// leases says which pod has which address. On disk a lease is a symbolic link
//
//	<dir>/10.42.0.7 -> <uid>
//
// because making one is a single step that carries its content and fails when
// the name is taken: a kill at any instant leaves a whole lease or none. Nothing
// is synced: what a power cut loses belonged to pods that ended with it.
//
// The file "last" names the address given last, so that a restart goes on with
// the next one: an address that was just freed is the last to be given again. It
// is overwritten in place; one that cannot be read costs only that order.
type leases struct {
	dir    string
	prefix netip.Prefix

	mu     sync.Mutex
	loaded bool
	whole  bool // the directory tells all; false when it is new, and the links may tell more
	byUID  map[types.UID]netip.Addr
	byAddr map[netip.Addr]types.UID
	last   netip.Addr // given last; the gateway at first
}

// Names in the directory that are no addresses.
const (
	lastName  = "last"
	wholeName = "whole" // made once the leases of a lost directory were taken from the links
)

func newLeases(dir string, prefix netip.Prefix) *leases {
	return &leases{dir: filepath.Join(dir, "addresses"), prefix: prefix}
}

var uidForm = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]{0,127}$`)

func checkUID(uid types.UID) error {
	if !uidForm.MatchString(string(uid)) {
		return fmt.Errorf("pod uid %q: must be letters, digits, '-', '_' and '.': %w", uid, schema.ErrRefused)
	}
	return nil
}

// load reads the directory once. The caller holds mu.
func (l *leases) load() error {
	if l.loaded {
		return nil
	}
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(l.dir, 0o755)
	}
	if err != nil {
		return fmt.Errorf("read the addresses in use: %w", err)
	}
	byUID, byAddr := map[types.UID]netip.Addr{}, map[netip.Addr]types.UID{}
	last, whole := l.prefix.Addr().Next(), false
	for _, e := range entries {
		switch e.Name() {
		case lastName:
			last = l.readLast(last)
			continue
		case wholeName:
			whole = true
			continue
		}
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			return fmt.Errorf("read the addresses in use: %s in %s is not ours: %w", e.Name(), l.dir, err)
		}
		target, err := os.Readlink(filepath.Join(l.dir, e.Name()))
		if err != nil {
			return fmt.Errorf("read the addresses in use: %w", err)
		}
		byAddr[addr] = types.UID(target)
		byUID[types.UID(target)] = addr
	}
	l.byUID, l.byAddr, l.last, l.whole, l.loaded = byUID, byAddr, last, whole, true
	return nil
}

// take returns the pod's address: the one it has, or the next free one.
// Wraps schema.ErrUnavailable when there is none.
func (l *leases) take(uid types.UID) (netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil {
		return netip.Addr{}, err
	}
	if a, ok := l.byUID[uid]; ok {
		return a, nil
	}
	a, ok := l.next()
	if !ok {
		return netip.Addr{}, fmt.Errorf("all %d pod addresses of %s are in use: %w", len(l.byAddr), l.prefix, schema.ErrUnavailable)
	}
	return a, l.store(a, uid)
}

// next is the first free address after the last one given, around the range.
func (l *leases) next() (netip.Addr, bool) {
	gateway := l.prefix.Addr().Next()
	broadcast := lastAddr(l.prefix)
	a := l.last
	for range 1 << (32 - l.prefix.Bits()) {
		if a = a.Next(); a == gateway || a == broadcast || !l.prefix.Contains(a) {
			a = gateway.Next()
		}
		if _, taken := l.byAddr[a]; !taken {
			return a, a != broadcast
		}
	}
	return a, false
}

// store makes the lease on disk, then in memory.
func (l *leases) store(a netip.Addr, uid types.UID) error {
	if err := os.Symlink(string(uid), filepath.Join(l.dir, a.String())); err != nil {
		return fmt.Errorf("record the pod's address: %w", err)
	}
	l.byUID[uid], l.byAddr[a], l.last = a, uid, a
	return l.storeLast()
}

// storeLast pads the address to one length, so that one write replaces it.
func (l *leases) storeLast() error {
	f, err := os.OpenFile(filepath.Join(l.dir, lastName), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("record the last address given: %w", err)
	}
	_, err = fmt.Fprintf(f, "%-15s\n", l.last)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("record the last address given: %w", err)
	}
	return nil
}

// readLast returns the address given last, or otherwise when there is none.
func (l *leases) readLast(otherwise netip.Addr) netip.Addr {
	text, err := os.ReadFile(filepath.Join(l.dir, lastName))
	if err != nil {
		return otherwise
	}
	a, err := netip.ParseAddr(strings.TrimSpace(string(text)))
	if err != nil || !l.prefix.Contains(a) {
		return otherwise
	}
	return a
}

// adopt records an address that a pod already has, found on its link.
func (l *leases) adopt(uid types.UID, a netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil {
		return err
	}
	_, known := l.byUID[uid]
	if _, taken := l.byAddr[a]; known || taken {
		return fmt.Errorf("address %s of pod %s: %w", a, uid, schema.ErrConflict)
	}
	return l.store(a, uid)
}

// release frees the pod's address; none is no error.
func (l *leases) release(uid types.UID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil {
		return err
	}
	a, ok := l.byUID[uid]
	if !ok {
		return nil
	}
	if err := os.Remove(filepath.Join(l.dir, a.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("free the pod's address: %w", err)
	}
	delete(l.byUID, uid)
	delete(l.byAddr, a)
	return nil
}

// settle records that the directory tells all from now on.
func (l *leases) settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil || l.whole {
		return err
	}
	if err := os.Symlink("yes", filepath.Join(l.dir, wholeName)); err != nil {
		return fmt.Errorf("record that all addresses are known: %w", err)
	}
	l.whole = true
	return nil
}

// all returns a copy of every lease, and whether these are all there are.
func (l *leases) all() (byUID map[types.UID]netip.Addr, whole bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(); err != nil {
		return nil, false, err
	}
	byUID = make(map[types.UID]netip.Addr, len(l.byUID))
	for uid, a := range l.byUID {
		byUID[uid] = a
	}
	return byUID, l.whole, nil
}

// forget removes every lease and the directory.
func (l *leases) forget() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded = false
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("forget the addresses in use: %w", err)
	}
	return nil
}

// lastAddr is the range's broadcast address.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(a)
}
