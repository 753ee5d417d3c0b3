package gitsource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-project/pawl/schema"
)

// story is what Past tells, one line a commit: subject, and each file with - +
// or ~ for removed, made and changed.
func story(t *testing.T, r *Repository, id, path string, most int) (lines []string, whole bool) {
	t.Helper()
	whole, err := r.Past(t.Context(), id, path, most, func(s *Step) (bool, error) {
		changes, err := s.Changes(t.Context())
		line := s.Commit.Subject
		for _, c := range changes {
			sign := "~"
			switch {
			case c.Before == "":
				sign = "+"
			case c.After == "":
				sign = "-"
			}
			line += " " + sign + c.Path
			if one, err := s.File(c.Path); err != nil || one != c {
				t.Errorf("File says %+v, %v; Changes say %+v", one, err, c)
			}
			if blob, err := s.Blob(c.Path); err != nil || blob != c.After {
				t.Errorf("Blob says %q, %v; Changes say %+v", blob, err, c)
			}
		}
		lines = append(lines, line)
		return true, err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, whole
}

func TestPast(t *testing.T) {
	work := newWork(t)
	commit(t, work, "first", map[string]string{"README": "x", "apps/web.yaml": "1", "apps/db.yaml": "1"})
	commit(t, work, "outside", map[string]string{"README": "y"})
	commit(t, work, "change", map[string]string{"apps/web.yaml": "2"})
	git(t, work, "checkout", "-q", "-b", "side")
	commit(t, work, "on the side", map[string]string{"apps/side.yaml": "1"})
	git(t, work, "checkout", "-q", "main")
	git(t, work, "mv", "apps/web.yaml", "apps/shop.yaml")
	commit(t, work, "rename", nil)
	git(t, work, "merge", "-q", "--no-ff", "-m", "merge", "side")
	head := git(t, work, "rev-parse", "HEAD")
	r := open(t, work+"/.git")

	got, whole := story(t, r, head, "", 100)
	want := []string{
		"merge +apps/side.yaml", "rename +apps/shop.yaml -apps/web.yaml", "change ~apps/web.yaml",
		"outside ~README", "first +README +apps/db.yaml +apps/web.yaml",
	}
	if diff := cmp.Diff(want, got); diff != "" || !whole {
		t.Errorf("whole %v\n%s", whole, diff)
	}
	got, whole = story(t, r, head, "apps", 100)
	want = []string{"merge +side.yaml", "rename +shop.yaml -web.yaml", "change ~web.yaml", "outside", "first +db.yaml +web.yaml"}
	if diff := cmp.Diff(want, got); diff != "" || !whole {
		t.Errorf("whole %v\n%s", whole, diff)
	}
	if got, whole := story(t, r, head, "", 2); len(got) != 2 || whole {
		t.Errorf("whole %v %v", whole, got)
	}
	git(t, work, "repack", "-a", "-d", "-q")
	if again, _ := story(t, r, head, "apps", 100); !slices.Equal(again, got) {
		t.Errorf("packed: %v", again)
	}
}

func TestPastOfWhatIsNotThere(t *testing.T) {
	work := newWork(t)
	commit(t, work, "first", map[string]string{"a": "x"})
	second := commit(t, work, "second", map[string]string{"a": "y"})
	r := open(t, work+"/.git")
	none := func(*Step) (bool, error) { return true, nil }
	if _, err := r.Past(t.Context(), strings.Repeat("0", 39)+"1", "", 9, none); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if _, err := r.Past(t.Context(), "main", "", 9, none); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("%v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Past(cancelled, second, "", 9, none); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// A clone that was cut short knows its newest commit and says that there is more.
	shallow := t.TempDir()
	git(t, work, "clone", "-q", "--depth", "1", "--bare", "file://"+work, shallow)
	if got, whole := story(t, open(t, shallow), second, "", 9); len(got) != 0 || whole {
		t.Errorf("whole %v %v", whole, got)
	}
}

// BenchmarkPast looks for one file through 1,000 commits of a repository of
// 10,000 files.
func BenchmarkPast(b *testing.B) {
	work := largeWork(b, 10_000)
	git(b, work, "config", "maintenance.auto", "false") // or it runs on behind the test
	commit(b, work, "first", nil)
	var script strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&script, "commit refs/heads/main\ncommitter Ada <a@example.org> %d +0000\ndata 4\nnext\n", 1_700_000_000+i)
		if i == 0 {
			fmt.Fprintf(&script, "from %s\n", git(b, work, "rev-parse", "HEAD"))
		}
		text := fmt.Sprint("changed: ", i)
		fmt.Fprintf(&script, "M 100644 inline team-05/app-055/%d.yaml\ndata %d\n%s\n", 5500+i%100, len(text), text)
	}
	gitInput(b, work, script.String(), "fast-import", "--quiet", "--force")
	head := git(b, work, "rev-parse", "main")
	r := open(b, work+"/.git")
	b.ReportAllocs()
	for b.Loop() {
		changed := 0
		if _, err := r.Past(b.Context(), head, "", 1000, func(s *Step) (bool, error) {
			c, err := s.File("team-05/app-055/5555.yaml")
			if c.Before != c.After {
				changed++
			}
			return true, err
		}); err != nil || changed != 10 {
			b.Fatal(changed, err)
		}
	}
}
