package build

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// fromPackages unpacks Debian packages with the libraries they depend on into a
// temporary directory, calls use with it, and removes it. Nothing is installed.
func fromPackages(ctx context.Context, packages []string, use func(root string) error) error {
	tmp, err := os.MkdirTemp("", "pawl-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a := apt{dir: tmp}
	all, err := a.closure(ctx, packages)
	if err == nil {
		err = a.download(ctx, all)
	}
	if err != nil {
		// A fresh machine has no package lists; fetch them, but not into the machine's own.
		if err := a.update(ctx); err != nil {
			return fmt.Errorf("get %s from Debian's packages: %w", strings.Join(packages, " "), err)
		}
		if all, err = a.closure(ctx, packages); err == nil {
			err = a.download(ctx, all)
		}
	}
	if err != nil {
		return fmt.Errorf("get %s from Debian's packages: %w", strings.Join(packages, " "), err)
	}
	root := filepath.Join(tmp, "root")
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := run(ctx, tmp, "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	return use(root)
}

// apt runs apt without touching the machine's installation.
type apt struct {
	dir     string
	options []string
}

var library = regexp.MustCompile(`^(lib|zlib)[a-z0-9.+-]*$`)

// closure adds the library packages that the packages depend on, and those on.
func (a *apt) closure(ctx context.Context, packages []string) ([]string, error) {
	seen := map[string]bool{}
	for next := packages; len(next) > 0; {
		for _, p := range next {
			seen[p] = true
		}
		out, err := run(ctx, a.dir, "apt-cache", append(append([]string{}, a.options...), append([]string{"depends", "--important"}, next...)...)...)
		if err != nil {
			return nil, err
		}
		next = nil
		for line := range strings.Lines(out) {
			kind, name, ok := strings.Cut(strings.TrimSpace(line), ": ")
			kind = strings.TrimPrefix(kind, "|")
			if ok && (kind == "Depends" || kind == "PreDepends") && library.MatchString(name) && !seen[name] {
				seen[name] = true
				next = append(next, name)
			}
		}
	}
	return sortedKeys(seen), nil
}

func (a *apt) download(ctx context.Context, packages []string) error {
	args := append([]string{"-q", "-o", "APT::Sandbox::User=root"}, a.options...)
	_, err := run(ctx, a.dir, "apt-get", append(append(args, "download"), packages...)...)
	return err
}

// update fetches the package lists into the temporary directory.
func (a *apt) update(ctx context.Context) error {
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return err
		}
	}
	a.options = []string{"-o", "Dir::State::Lists=" + filepath.Join(a.dir, "lists"), "-o", "Dir::Cache=" + filepath.Join(a.dir, "cache")}
	_, err := run(ctx, a.dir, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root"}, append(a.options, "update")...)...)
	return err
}

// run runs a program and returns what it printed; the error holds what it complained.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is not on this machine; these images are built on Debian or Ubuntu: %w", name, err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// addProgram puts a program of an unpacked root at a path of the image, with
// the dynamic loader and every library that it needs.
func (t tree) addProgram(root, program, as string) error {
	file, err := find(root, program)
	if err != nil {
		return err
	}
	if err := t.add(file, as, 0o755); err != nil {
		return err
	}
	return t.addLibraries(root, file)
}

func (t tree) addLibraries(root, file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	defer f.Close()
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read the libraries of %s: %w", file, err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name := make([]byte, p.Filesz)
		if _, err := p.ReadAt(name, 0); err != nil {
			return fmt.Errorf("read the loader of %s: %w", file, err)
		}
		loader := strings.Trim(string(name), "\x00")
		at, err := find(root, filepath.Base(loader))
		if err != nil {
			return err
		}
		if err := t.add(at, strings.TrimPrefix(loader, "/"), 0o755); err != nil {
			return err
		}
	}
	for _, name := range needed {
		as := "lib/" + multiarch(f.Machine) + "/" + name
		if _, there := t[as]; there || strings.HasPrefix(name, "ld-linux") {
			continue
		}
		at, err := find(root, name)
		if err != nil {
			return err
		}
		if err := t.add(at, as, 0o644); err != nil {
			return err
		}
		if err := t.addLibraries(root, at); err != nil {
			return err
		}
	}
	return nil
}

func multiarch(m elf.Machine) string {
	if m == elf.EM_AARCH64 {
		return "aarch64-linux-gnu"
	}
	return "x86_64-linux-gnu"
}

func (t tree) add(file, as string, mode int64) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	t.file(as, mode, data)
	return nil
}

// find finds a program or library below an unpacked root by its last name.
func find(root, name string) (string, error) {
	for _, dir := range []string{"usr/sbin", "usr/bin", "bin", "sbin", "lib/*-linux-gnu", "usr/lib/*-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"} {
		found, err := filepath.Glob(filepath.Join(root, dir, name))
		if err != nil {
			return "", err
		}
		for _, f := range found {
			if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() {
				return f, nil
			}
		}
	}
	return "", fmt.Errorf("%s is in none of the unpacked packages", name)
}
