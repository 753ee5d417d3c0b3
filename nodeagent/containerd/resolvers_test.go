package containerd

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestHostResolversOfLoopbackAreLookedBehind(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	stub := write("stub", "nameserver 127.0.0.53\noptions edns0\n")
	plain := write("plain", "nameserver 192.0.2.1\n")
	behind := write("behind", "nameserver 192.0.2.53\n")
	none := filepath.Join(dir, "none")
	for _, c := range []struct{ file, behind, want string }{
		{stub, behind, "nameserver 192.0.2.53\n"},
		{stub, none, "nameserver 127.0.0.53\noptions edns0\n"},
		{plain, behind, "nameserver 192.0.2.1\n"},
		{none, behind, ""},
	} {
		got, err := hostResolvers(c.file, c.behind)
		if err != nil || string(got) != c.want {
			t.Errorf("%s before %s: %q, %v, want %q", c.file, c.behind, got, err, c.want)
		}
	}
}

// A pod's dnsConfig is put together with the node's resolvers as Kubernetes
// does it: a resolver would read the last search line alone.
func TestResolversWithDNSConfig(t *testing.T) {
	node := []byte("# mine\ndomain old.test\nsearch a.test b.test\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions ndots:5 edns0\nsortlist x\n")
	two := "2"
	c := &corev1.PodDNSConfig{
		Nameservers: []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"}, Searches: []string{"b.test", "c.test"},
		Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &two}, {Name: "rotate"}},
	}
	want := "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nsearch a.test b.test c.test\noptions edns0 ndots:2 rotate\n"
	if got := string(parseResolvers(node).with(c).file()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func FuzzParseResolvers(f *testing.F) {
	f.Add([]byte("nameserver 1.1.1.1\nsearch a b\noptions x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		once := parseResolvers(text).file()
		if again := parseResolvers(once).file(); string(again) != string(once) {
			t.Errorf("%q became %q", once, again)
		}
	})
}
