package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// Whatever stands in the directory of addresses, a pod is given one of the range
// that nobody has, or a reason; what is given is read again, and given back.
func FuzzLeases(f *testing.F) {
	f.Add("10.0.0.2 a\n10.0.0.3 b\nwhole yes", "10.0.0.3       \n", uint8(29))
	f.Add("10.0.0.2 a\n10.0.0.3 a\n::ffff:10.0.0.4 c", "10.0.0.7", uint8(29))
	f.Add("192.168.0.1 a\n192.168.0.2 b\n192.168.0.3 c\n192.168.0.4 d\n192.168.0.5 e\n10.0.0.2 f", "x", uint8(29))
	f.Add("10.0.0.2 a\n10.0.0.3 b\n10.0.0.4 c\n10.0.0.5 d\n10.0.0.6 e", "", uint8(29))
	f.Add("10.0.0.3 a", "10.0.0.0", uint8(29))
	f.Add("notes.txt x", "10.0.0.0", uint8(24))
	f.Fuzz(func(t *testing.T, entries, last string, bits uint8) {
		prefix, err := netip.AddrFrom4([4]byte{10, 0, 0, 0}).Prefix(int(bits))
		if err != nil || bits < 24 || bits > 30 {
			return
		}
		base, err := os.MkdirTemp("/dev/shm", "pawl-fuzz-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(base)
		l := newLeases(base, prefix)
		if err := os.MkdirAll(l.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		held, known := map[netip.Addr]bool{}, true
		for line := range strings.Lines(entries) {
			name, target, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if strings.ContainsAny(name, "/\x00") || os.Symlink(target, filepath.Join(l.dir, name)) != nil {
				continue
			}
			a, err := netip.ParseAddr(name)
			held[a] = true
			known = known && (err == nil || name == lastName || name == wholeName)
		}
		_ = os.WriteFile(filepath.Join(l.dir, lastName), []byte(last), 0o600) // it may be a link to nowhere
		free := 0
		for a := prefix.Addr().Next().Next(); a != lastAddr(prefix) && prefix.Contains(a); a = a.Next() {
			if !held[a] {
				free++
			}
		}
		a, err := l.take("a-new-pod")
		if err != nil {
			if known && free > 0 && !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) || errors.Is(err, schema.ErrUnavailable) && free > 0 {
				t.Errorf("with %d free: %v", free, err)
			}
			return
		}
		if held[a] || !prefix.Contains(a) || a == prefix.Addr() || a == prefix.Addr().Next() || a == lastAddr(prefix) {
			t.Errorf("given: %s of %s", a, prefix)
		}
		if again, err := newLeases(base, prefix).take("a-new-pod"); again != a || err != nil {
			t.Errorf("read again: %s, %v; want %s", again, err, a)
		}
		if err := l.release("a-new-pod"); err != nil {
			t.Error(err)
		}
		if left, _, err := newLeases(base, prefix).all(); err != nil || left["a-new-pod"].IsValid() {
			t.Errorf("given back: %v, %v", left, err)
		}
	})
}

// The name of a link is a pod's and its address', or is none of ours.
func FuzzVethAlias(f *testing.F) {
	n := &Network{}
	f.Add(n.vethAlias("u1", netip.MustParseAddr("10.0.0.2")))
	f.Add(n.alias() + " ../x 10.0.0.2")
	f.Add(n.alias() + " u 10.0.0.2%eth0 ")
	f.Fuzz(func(t *testing.T, alias string) {
		uid, a, ok := n.parseVethAlias(alias)
		if !ok {
			return
		}
		if !a.IsValid() || !uidForm.MatchString(string(uid)) || !strings.HasSuffix(alias, fmt.Sprint(" ", uid, " ", alias[strings.LastIndexByte(alias, ' ')+1:])) {
			t.Errorf("%q is of pod %q, %s", alias, uid, a)
		}
		if again, b, ok := n.parseVethAlias(n.vethAlias(uid, a)); !ok || again != uid || b != a {
			t.Errorf("%q is read again as %q, %s", alias, again, b)
		}
	})
}
