package gitsource

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// largeWork makes a repository of many files, 100 a directory.
func largeWork(tb testing.TB, files int) string {
	work := newWork(tb)
	for i := range files {
		path := filepath.Join(work, fmt.Sprintf("team-%02d/app-%03d/%d.yaml", i/1000, i/100, i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				tb.Fatal(err)
			}
		}
		if err := os.WriteFile(path, fmt.Appendf(nil, "kind: ConfigMap\nmetadata:\n  name: c%d\n%s", i, strings.Repeat("# filler\n", 40)), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	return work
}

// BenchmarkCommit lists a tree of 10,000 files: for the first time, and again
// after a commit that changes one file.
func BenchmarkCommit(b *testing.B) {
	work := largeWork(b, 10_000)
	first := commit(b, work, "first", nil)
	git(b, work, "repack", "-a", "-d", "-q")
	dir := filepath.Join(work, ".git")
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := open(b, dir)
			if c, err := r.Commit(b.Context(), first, ""); err != nil || len(c.Tree.Files()) != 10_000 {
				b.Fatal(err)
			}
			r.Close()
		}
	})
	b.Run("one file changed", func(b *testing.B) {
		r := open(b, dir)
		if _, err := r.Commit(b.Context(), first, ""); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			id := commit(b, work, "next", map[string]string{"team-05/app-055/5555.yaml": fmt.Sprint("changed: ", i)})
			b.StartTimer()
			if _, err := r.Commit(b.Context(), id, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read all", func(b *testing.B) {
		r := open(b, dir)
		c, err := r.Commit(b.Context(), first, "")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			for _, f := range c.Tree.Files() {
				if _, err := c.Tree.Read(f, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkPoll looks at a remote repository on this machine that has not
// moved, and fetches a commit of one file.
func BenchmarkPoll(b *testing.B) {
	work := largeWork(b, 1000)
	commit(b, work, "first", nil)
	r, err := NewRemote(RemoteOptions{URL: work, Dir: filepath.Join(b.TempDir(), "mirror.git")})
	if err != nil {
		b.Fatal(err)
	}
	m := &mirror{remote: r}
	defer m.close()
	look := func(b *testing.B) (schema.Commit, bool) {
		c, moved, err := m.look(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		return c, moved
	}
	look(b)
	b.Run("not moved", func(b *testing.B) {
		for b.Loop() {
			look(b)
		}
	})
	b.Run("one file changed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			commit(b, work, "next", map[string]string{"team-00/app-000/1.yaml": fmt.Sprint("changed: ", i)})
			b.StartTimer()
			if _, moved := look(b); !moved {
				b.Fatal("not found")
			}
		}
	})
}
