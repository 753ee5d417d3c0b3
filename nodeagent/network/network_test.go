package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A namespace is a network namespace of a test, pinned as the agent pins a pod's.
type namespace struct {
	t    testing.TB
	path string
	once sync.Once
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces")
	}
	ns := &namespace{t: t, path: filepath.Join(t.TempDir(), "net")}
	if err := os.WriteFile(ns.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), ns.path, "", unix.MS_BIND, "")
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(ns.remove)
	return ns
}

// remove unpins the namespace; the kernel frees it and its links.
func (ns *namespace) remove() {
	ns.once.Do(func() {
		if err := unix.Unmount(ns.path, unix.MNT_DETACH); err != nil {
			ns.t.Errorf("unpin %s: %v", ns.path, err)
		}
	})
}

// in calls f on a thread that is in the namespace.
func (ns *namespace) in(f func() error) {
	ns.t.Helper()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		h, err := netns.GetFromPath(ns.path)
		if err == nil {
			defer h.Close()
			if err = netns.Set(h); err == nil {
				err = f()
			}
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		ns.t.Helper()
		ns.t.Error(err)
	}
}

// handle is a netlink socket in the namespace.
func (ns *namespace) handle() *netlink.Handle {
	ns.t.Helper()
	h, err := netns.GetFromPath(ns.path)
	if err != nil {
		ns.t.Fatal(err)
	}
	defer h.Close()
	nl, err := netlink.NewHandleAt(h, unix.NETLINK_ROUTE)
	if err != nil {
		ns.t.Fatal(err)
	}
	ns.t.Cleanup(nl.Close)
	return nl
}

func (ns *namespace) links() map[string]netlink.Link {
	ns.t.Helper()
	list, err := ns.handle().LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // links came or went meanwhile
		list, err = ns.handle().LinkList()
	}
	if err != nil {
		ns.t.Fatal(err)
	}
	m := map[string]netlink.Link{}
	for _, l := range list {
		m[l.Attrs().Name] = l
	}
	return m
}

// serve answers every connection to port 80 with the caller's address.
func (ns *namespace) serve(address string) {
	ns.t.Helper()
	var l net.Listener
	ns.in(func() (err error) {
		l, err = net.Listen("tcp4", address)
		return err
	})
	if l == nil {
		ns.t.FailNow()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			io.WriteString(c, host)
			c.Close()
		}
	})
	ns.t.Cleanup(func() { l.Close(); wg.Wait() })
}

// ask connects to a server in another namespace and returns what it answers:
// the address that it saw the caller have.
func (ns *namespace) ask(address string) string {
	ns.t.Helper()
	var answer []byte
	ns.in(func() error {
		c, err := net.DialTimeout("tcp4", address, 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		answer, err = io.ReadAll(c)
		return err
	})
	return string(answer)
}

func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// A fixture is a node in a network namespace of its own.
type fixture struct {
	*Network
	t     testing.TB
	host  *namespace
	state string
}

func newFixture(t testing.TB, cidr string) *fixture {
	t.Helper()
	f := &fixture{t: t, host: newNamespace(t), state: filepath.Join(t.TempDir(), "network")}
	if err := f.host.handle().LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		t.Fatal(err)
	}
	// A new namespace takes this over from the machine, which may forward.
	f.host.in(func() error { return os.WriteFile(forwardingFile, []byte("0\n"), 0o644) })
	f.restart(cidr)
	f.setup()
	return f
}

// restart is what a killed agent does: everything in memory is lost.
func (f *fixture) restart(cidr string) {
	f.t.Helper()
	n, err := New(Options{Instance: "test", CIDR: cidr, StateDir: f.state, HostNetns: f.host.path, Logger: testLog(f.t)})
	if err != nil {
		f.t.Fatal(err)
	}
	f.Network = n
}

func (f *fixture) setup() {
	f.t.Helper()
	if err := f.Setup(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) attach(uid types.UID, ns *namespace) string {
	f.t.Helper()
	ip, err := f.Attach(f.t.Context(), uid, ns.path)
	if err != nil {
		f.t.Fatal(err)
	}
	return ip
}

func (f *fixture) detach(uid types.UID) {
	f.t.Helper()
	if err := f.Detach(f.t.Context(), uid); err != nil {
		f.t.Fatal(err)
	}
}

// veths counts the host's ends.
func (f *fixture) vethCount() int {
	f.t.Helper()
	v, err := f.veths(f.host.handle())
	if err != nil {
		f.t.Fatal(err)
	}
	return len(v)
}

func (f *fixture) leaseFiles() []string {
	f.t.Helper()
	entries, err := os.ReadDir(filepath.Join(f.state, "addresses"))
	if err != nil {
		f.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func TestPodsReachEachOtherAndTheHost(t *testing.T) {
	f := newFixture(t, "")
	a, b := newNamespace(t), newNamespace(t)
	ipA, ipB := f.attach("a", a), f.attach("b", b)
	if ipA != "10.42.0.2" || ipB != "10.42.0.3" {
		t.Errorf("addresses %s and %s, want 10.42.0.2 and 10.42.0.3", ipA, ipB)
	}
	a.serve(":80")
	f.host.serve(":80")
	if got := b.ask(ipA + ":80"); got != ipB {
		t.Errorf("pod a saw pod b as %q, want %s", got, ipB)
	}
	if got := f.host.ask(ipA + ":80"); got != "10.42.0.1" {
		t.Errorf("pod a saw the host as %q, want 10.42.0.1", got)
	}
	if got := b.ask("10.42.0.1:80"); got != ipB {
		t.Errorf("the host saw pod b as %q, want %s", got, ipB)
	}
	if got := a.ask("127.0.0.1:80"); got != "127.0.0.1" {
		t.Errorf("pod a saw itself as %q by loopback", got)
	}
}

// TestMasquerade has a second machine that knows no route to the pods.
func TestMasquerade(t *testing.T) {
	f := newFixture(t, "")
	outside := f.uplink("192.0.2.1/24", "192.0.2.9/24")
	outside.serve(":80")
	pod := newNamespace(t)
	f.attach("a", pod)
	if got := pod.ask("192.0.2.9:80"); got != "192.0.2.1" {
		t.Errorf("the outside saw the pod as %q, want the host's 192.0.2.1", got)
	}
}

// uplink joins the host to another machine by a veth pair.
func (f *fixture) uplink(here, there string) *namespace {
	f.t.Helper()
	outside := newNamespace(f.t)
	ns, err := netns.GetFromPath(outside.path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = "wan0", netlink.NsFd(ns)
	host := f.host.handle()
	if err := host.LinkAdd(pair); err != nil {
		f.t.Fatal(err)
	}
	for _, end := range []struct {
		h          *netlink.Handle
		name, addr string
	}{{host, "up0", here}, {outside.handle(), "wan0", there}} {
		link, err := end.h.LinkByName(end.name)
		if err != nil {
			f.t.Fatal(err)
		}
		addr, err := netlink.ParseAddr(end.addr)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := errors.Join(end.h.AddrAdd(link, addr), end.h.LinkSetUp(link)); err != nil {
			f.t.Fatal(err)
		}
	}
	return outside
}

// TestCrash repeats every step with all memory lost in between.
func TestCrash(t *testing.T) {
	f := newFixture(t, "")
	a, b := newNamespace(t), newNamespace(t)
	ip := f.attach("a", a)
	a.serve(":80")
	before := f.host.links()
	for range 3 {
		f.restart("")
		f.setup()
		if got := f.attach("a", a); got != ip {
			t.Errorf("address %s after a restart, want %s", got, ip)
		}
		if got := f.host.ask(ip + ":80"); got != "10.42.0.1" {
			t.Errorf("pod a saw the host as %q", got)
		}
	}
	after := f.host.links()
	for name, l := range before {
		if after[name] == nil || after[name].Attrs().Index != l.Attrs().Index {
			t.Errorf("link %s did not stay", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d links, want %d", len(after), len(before))
	}
	if ipB := f.attach("b", b); ipB == ip {
		t.Errorf("address %s given twice", ip)
	}
	known, err := f.Known(t.Context())
	if err != nil || len(known) != 2 || known["a"].String() != ip {
		t.Errorf("known %v, %v", known, err)
	}
}

// TestHalfMade begins where a kill between two steps of Attach left off.
func TestHalfMade(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, f *fixture, pod *namespace){
		"lease only": func(t *testing.T, f *fixture, _ *namespace) {
			if _, err := f.leases.take("a"); err != nil {
				t.Fatal(err)
			}
		},
		"veth without bridge": func(t *testing.T, f *fixture, pod *namespace) {
			f.attach("a", pod)
			h := f.host.handle()
			link, err := h.LinkByName(f.vethName("a"))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(h.LinkSetNoMaster(link), h.LinkSetAlias(link, "")); err != nil {
				t.Fatal(err)
			}
		},
		"no address inside": func(t *testing.T, f *fixture, pod *namespace) {
			ip := f.attach("a", pod)
			h := pod.handle()
			link, err := h.LinkByName("eth0")
			if err != nil {
				t.Fatal(err)
			}
			addr, err := netlink.ParseAddr(ip + "/24")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(h.AddrDel(link, addr), h.LinkSetDown(link)); err != nil {
				t.Fatal(err)
			}
		},
		"sandbox made again": func(t *testing.T, f *fixture, _ *namespace) {
			f.attach("a", newNamespace(t)) // which stays pinned
		},
		"bridge removed": func(t *testing.T, f *fixture, pod *namespace) {
			f.attach("a", pod)
			h := f.host.handle()
			link, err := h.LinkByName(f.Bridge())
			if err != nil {
				t.Fatal(err)
			}
			if err := h.LinkDel(link); err != nil {
				t.Fatal(err)
			}
		},
		"last unreadable": func(t *testing.T, f *fixture, _ *namespace) {
			if err := os.WriteFile(filepath.Join(f.state, "addresses", "last"), []byte("10.42"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "")
			pod := newNamespace(t)
			damage(t, f, pod)
			f.restart("")
			f.setup()
			ip := f.attach("a", pod)
			pod.serve(":80")
			if got := f.host.ask(ip + ":80"); got != "10.42.0.1" {
				t.Errorf("pod a saw the host as %q", got)
			}
			if n := f.vethCount(); n != 1 {
				t.Errorf("%d veths, want 1", n)
			}
		})
	}
}

// TestLostRecord wipes the state directory while a pod runs.
func TestLostRecord(t *testing.T) {
	f := newFixture(t, "")
	a, b := newNamespace(t), newNamespace(t)
	ip := f.attach("a", a)
	a.serve(":80")
	if err := os.RemoveAll(f.state); err != nil {
		t.Fatal(err)
	}
	f.restart("")
	f.setup()
	if ipB := f.attach("b", b); ipB == ip {
		t.Errorf("address %s given twice", ip)
	}
	if got := b.ask(ip + ":80"); got == "" {
		t.Error("the running pod lost its network")
	}
	known, err := f.Known(t.Context())
	if err != nil || known["a"].String() != ip {
		t.Errorf("known %v, %v; want a at %s", known, err, ip)
	}
}

func TestNothingIsLeftOfManyPods(t *testing.T) {
	f := newFixture(t, "")
	before := len(f.host.links())
	for round := range 3 {
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 40 {
			ns, uid := newNamespace(t), types.UID(fmt.Sprintf("pod-%d-%d", round, i))
			g.Go(func() error {
				if _, err := f.Attach(ctx, uid, ns.path); err != nil {
					return err
				}
				ns.remove()
				return f.Detach(ctx, uid)
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the kernel frees the veths", func() error {
		if n := len(f.host.links()); n != before {
			return fmt.Errorf("%d links, want %d", n, before)
		}
		return nil
	})
	if left := f.leaseFiles(); len(left) != 0 {
		t.Errorf("addresses left: %v", left)
	}
}

// TestSweep leaves a namespace behind after its pod was detached.
func TestSweep(t *testing.T) {
	f := newFixture(t, "")
	left, kept := newNamespace(t), newNamespace(t)
	f.attach("left", left)
	f.attach("kept", kept)
	f.detach("left")
	f.detach("left")
	if n, err := f.Sweep(t.Context()); n != 1 || err != nil {
		t.Errorf("swept %d, %v; want 1", n, err)
	}
	if n := f.vethCount(); n != 1 {
		t.Errorf("%d veths left, want 1", n)
	}
	if _, err := kept.handle().LinkByName("eth0"); err != nil {
		t.Errorf("the pod that stays: %v", err)
	}
}

// TestAddresses are never given twice, are reused last, and run out clearly.
func TestAddresses(t *testing.T) {
	l := newLeases(t.TempDir(), netip.MustParsePrefix("10.9.0.0/29")) // .2 to .6
	given := map[netip.Addr]types.UID{}
	for i := range 5 {
		uid := types.UID(fmt.Sprint("p", i))
		a, err := l.take(uid)
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := given[a]; twice {
			t.Errorf("%s given to %s and %s", a, other, uid)
		}
		given[a] = uid
	}
	if _, err := l.take("one more"); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), "10.9.0.0/29") {
		t.Errorf("a full range answers %v, want ErrUnavailable that names it", err)
	}
	for _, uid := range []types.UID{"p1", "p3"} {
		if err := l.release(uid); err != nil {
			t.Fatal(err)
		}
	}
	// A restart must not forget which address was given last.
	l = newLeases(strings.TrimSuffix(l.dir, "/addresses"), l.prefix)
	a, err := l.take("q")
	if err != nil || a.String() != "10.9.0.3" {
		t.Errorf("gave %s, %v; want 10.9.0.3, freed first", a, err)
	}
	if err := l.release("q"); err != nil {
		t.Fatal(err)
	}
	if a, err = l.take("r"); err != nil || a.String() != "10.9.0.5" {
		t.Errorf("gave %s, %v; want 10.9.0.5, because 10.9.0.3 was used since", a, err)
	}
}

func TestAddressesInParallel(t *testing.T) {
	l := newLeases(t.TempDir(), netip.MustParsePrefix("10.9.0.0/22"))
	var mu sync.Mutex
	given := map[netip.Addr]bool{}
	var g errgroup.Group
	for i := range 1021 {
		g.Go(func() error {
			a, err := l.take(types.UID(fmt.Sprint("p", i)))
			mu.Lock()
			defer mu.Unlock()
			if given[a] {
				return fmt.Errorf("%s given twice", a)
			}
			given[a] = true
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := l.take("one more"); !errors.Is(err, schema.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

// TestRefusals touches nothing that is not ours.
func TestRefusals(t *testing.T) {
	t.Run("range of another link", func(t *testing.T) {
		f := newFixture(t, "")
		f.uplink("10.50.3.1/24", "10.50.3.2/24")
		f.restart("10.50.0.0/16")
		err := f.Setup(t.Context())
		if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "up0") {
			t.Errorf("%v, want ErrRefused that names the link", err)
		}
	})
	t.Run("range changed under pods", func(t *testing.T) {
		f := newFixture(t, "")
		f.attach("a", newNamespace(t))
		f.restart("10.43.0.0/24")
		err := f.Setup(t.Context())
		if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "10.42.0.2") {
			t.Errorf("%v, want ErrRefused that names the address", err)
		}
		f.detach("a")
		f.setup()
	})
	t.Run("bridge of another", func(t *testing.T) {
		f := newFixture(t, "")
		if err := f.Teardown(t.Context()); err != nil {
			t.Fatal(err)
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = f.Bridge()
		if err := f.host.handle().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
		if err := f.Setup(t.Context()); !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), f.Bridge()) {
			t.Errorf("%v, want ErrRefused that names the bridge", err)
		}
		if err := f.Teardown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.host.links()[f.Bridge()] == nil {
			t.Error("another's bridge was removed")
		}
	})
	t.Run("another eth0", func(t *testing.T) {
		f := newFixture(t, "")
		pod := newNamespace(t)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0"
		if err := pod.handle().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Attach(t.Context(), "a", pod.path); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%v, want ErrRefused", err)
		}
	})
	t.Run("no namespace", func(t *testing.T) {
		f := newFixture(t, "")
		if _, err := f.Attach(t.Context(), "a", filepath.Join(t.TempDir(), "none")); !errors.Is(err, schema.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
		if left := f.leaseFiles(); len(left) != 0 {
			t.Errorf("addresses left: %v", left)
		}
	})
	t.Run("options", func(t *testing.T) {
		for _, o := range []Options{
			{CIDR: "10.42.0.1/24"}, {CIDR: "fd00::/64"}, {CIDR: "10.42.0.0/31"}, {CIDR: "x"}, {Bridge: "sixteen-letters0"}, {Bridge: "a/b"}, {Instance: "../x"},
		} {
			o.StateDir = t.TempDir()
			if _, err := New(o); !errors.Is(err, schema.ErrRefused) {
				t.Errorf("%+v: %v, want ErrRefused", o, err)
			}
		}
	})
}

// TestTeardown leaves the host as it was, and other instances alone.
func TestTeardown(t *testing.T) {
	f := newFixture(t, "")
	before := f.host.links()
	other, err := New(Options{Instance: "other-instance-of-long-name", CIDR: "10.44.0.0/24", StateDir: filepath.Join(t.TempDir(), "s"), HostNetns: f.host.path, Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod, theirs := newNamespace(t), newNamespace(t)
	f.attach("a", pod)
	if _, err := other.Attach(t.Context(), "a", theirs.path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := other.Teardown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.host.links()); n != len(before)+1 {
		t.Errorf("%d links, want what was there and one veth", n)
	}
	pod.serve(":80")
	if got := f.host.ask("10.42.0.2:80"); got != "10.42.0.1" {
		t.Errorf("the other instance's pod saw %q", got)
	}
	if err := f.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(f.host.links()); n != len(before)-1 {
		t.Errorf("%d links, want %d", n, len(before)-1)
	}
	if tables := f.tables(); len(tables) != 0 {
		t.Errorf("tables left: %v", tables)
	}
	f.host.in(func() error {
		value, err := os.ReadFile(forwardingFile)
		if err == nil && !bytes.Equal(value, []byte("0\n")) {
			t.Errorf("ip_forward is %q, want what it was", value)
		}
		return err
	})
	if _, err := os.Stat(f.state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory is left: %v", err)
	}
}

func (f *fixture) tables() []string {
	f.t.Helper()
	var names []string
	err := f.onTables(func(c *nftables.Conn) error {
		tables, err := c.ListTables()
		for _, t := range tables {
			names = append(names, t.Name)
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return names
}

// TestSetupReplacesItsTable whatever it holds, and no other.
func TestSetupReplacesItsTable(t *testing.T) {
	f := newFixture(t, "")
	if err := f.onTables(func(c *nftables.Conn) error {
		theirs := c.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyIPv4})
		c.AddChain(&nftables.Chain{Name: "kept", Table: theirs})
		c.AddChain(&nftables.Chain{Name: "stray", Table: &nftables.Table{Name: f.table(), Family: nftables.TableFamilyIPv4}})
		return c.Flush()
	}); err != nil {
		t.Fatal(err)
	}
	f.setup()
	var chains []string
	if err := f.onTables(func(c *nftables.Conn) error {
		list, err := c.ListChains()
		for _, chain := range list {
			rules, err := c.GetRules(chain.Table, chain)
			if err != nil {
				return err
			}
			chains = append(chains, fmt.Sprintf("%s/%s:%d", chain.Table.Name, chain.Name, len(rules)))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := "pawl-test/postrouting:1 pawl-test/forward:2 theirs/kept:0"
	if got := strings.Join(chains, " "); got != want && got != "theirs/kept:0 pawl-test/postrouting:1 pawl-test/forward:2" {
		t.Errorf("chains %s, want %s", got, want)
	}
}

func BenchmarkAttach(b *testing.B) {
	for _, parallel := range []int{1, 8} {
		b.Run(fmt.Sprintf("parallel=%d", parallel), func(b *testing.B) {
			f := newFixture(b, "10.42.0.0/16")
			namespaces := make([]*namespace, b.N)
			for i := range namespaces {
				namespaces[i] = newNamespace(b)
			}
			var g errgroup.Group
			g.SetLimit(parallel)
			ctx := context.Background()
			b.ResetTimer()
			for i, ns := range namespaces {
				g.Go(func() error {
					_, err := f.Attach(ctx, types.UID(fmt.Sprint("p", i)), ns.path)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pods/s")
			if err := f.Teardown(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}
