package containerd

import (
	"os"
	"path/filepath"
	"testing"
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
