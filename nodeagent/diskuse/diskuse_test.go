package diskuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, file string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

func of(t *testing.T, dir string) Usage {
	t.Helper()
	u, err := Of(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestOf(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "d")
	if u := of(t, dir); u != (Usage{}) {
		t.Errorf("what is not there takes %+v", u)
	}
	write(t, filepath.Join(dir, "a"), 1<<20)
	write(t, filepath.Join(dir, "b", "c", "e"), 1<<20)
	u := of(t, dir)
	if u.Bytes < 2<<20 || u.Bytes > 2<<20+1<<16 || u.Inodes != 5 {
		t.Errorf("two files of 1 MiB below three directories take %+v", u)
	}

	// What does not take more: a second name, a symbolic link out, a hole.
	write(t, filepath.Join(root, "outside"), 1<<20)
	if err := errors.Join(
		os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "a2")),
		os.Symlink(filepath.Join(root, "outside"), filepath.Join(dir, "link")),
		os.Symlink(root, filepath.Join(dir, "up")),
		os.Truncate(filepath.Join(dir, "b", "c", "e"), 1<<40),
	); err != nil {
		t.Fatal(err)
	}
	if more := of(t, dir); more.Bytes > u.Bytes+1<<16 || more.Inodes != u.Inodes+2 {
		t.Errorf("with links and a hole: %+v, before %+v", more, u)
	}
	if _, err := Of(t.Context(), filepath.Join(dir, "up")); err == nil {
		t.Error("the directory itself was followed as a symbolic link")
	}
	if _, err := Of(t.Context(), filepath.Join(dir, "a")); err == nil {
		t.Error("a file was measured as a directory")
	}
}

// TestOtherDisk: what is mounted below belongs to somebody else.
func TestOtherDisk(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "m")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH) //nolint:errcheck // the directory cannot be removed then, and the test fails
	write(t, filepath.Join(at, "x"), 1<<20)
	if u := of(t, dir); u.Inodes != 1 {
		t.Errorf("with a tmpfs below: %+v", u)
	}
}

func TestDeep(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for range deepest + 10 {
		if err := os.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		t.Chdir("d")
	}
	t.Chdir(dir)
	u, err := Of(t.Context(), dir)
	if !errors.Is(err, ErrDeep) || u.Inodes < deepest {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestCancelled(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 * lookEvery {
		write(t, filepath.Join(dir, fmt.Sprint(i)), 0)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Of(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestWhileItChanges: others write and remove below all the time.
func TestWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			at := filepath.Join(dir, fmt.Sprint(i%50))
			_ = os.RemoveAll(at)
			_ = os.MkdirAll(filepath.Join(at, "x", "y"), 0o755)
			_ = os.WriteFile(filepath.Join(at, "x", "f"), make([]byte, 1000), 0o644)
			_ = os.Rename(filepath.Join(at, "x"), filepath.Join(at, "z"))
			_ = os.Symlink("/", filepath.Join(at, "x"))
		}
	}()
	for range 30 {
		if u := of(t, dir); u.Inodes > 500 {
			t.Errorf("%+v", u)
		}
	}
	close(stop)
	<-done
}

func BenchmarkOf(b *testing.B) {
	dir := b.TempDir()
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := Of(b.Context(), dir); err != nil {
			b.Fatal(err)
		}
	}
}
