package build

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// installedBusybox is where Debian's busybox-static puts it.
const installedBusybox = "/bin/busybox"

// busyboxLayers is the base of every image but hello: busybox as every command,
// so that there is a shell to look around with.
func busyboxLayers(ctx context.Context, _ string) ([]packed, error) {
	program, err := busybox(ctx)
	if err != nil {
		return nil, err
	}
	text, err := cached(ctx, "busybox", []string{string(program), baseVersion}, func(ctx context.Context) ([]byte, error) {
		t, err := baseTree(ctx, program)
		if err != nil {
			return nil, err
		}
		return t.pack()
	})
	return []packed{text}, err
}

// busybox returns the machine's own busybox when that is a static one, or the
// one of the package busybox-static.
func busybox(ctx context.Context) ([]byte, error) {
	if static(installedBusybox) {
		return os.ReadFile(installedBusybox)
	}
	program, err := cached(ctx, "busybox-static", []string{distribution()}, func(ctx context.Context) (program []byte, err error) {
		err = fromPackages(ctx, []string{"busybox-static"}, func(root string) error {
			file, err := find(root, "busybox")
			if err == nil {
				program, err = os.ReadFile(file)
			}
			return err
		})
		return program, err
	})
	if err != nil {
		return nil, fmt.Errorf("a static busybox is needed (apt-get install busybox-static): %w", err)
	}
	return program, nil
}

// static says whether a program needs no libraries.
func static(file string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// baseVersion changes with what baseTree makes.
const baseVersion = "1"

func baseTree(ctx context.Context, program []byte) (tree, error) {
	applets, err := applets(ctx, program)
	if err != nil {
		return nil, err
	}
	t := tree{}
	t.file("bin/busybox", 0o755, program)
	for _, name := range applets {
		if name != "busybox" {
			t.symlink("bin/"+name, "busybox")
		}
	}
	// One folder of programs under all its usual names.
	t.symlink("sbin", "bin")
	t.symlink("usr/bin", "../bin")
	t.symlink("usr/sbin", "../bin")
	t.folder("tmp", 0o1777)
	t.folder("var/tmp", 0o1777)
	t.folder("root", 0o700)
	for _, dir := range []string{"dev", "etc", "home", "proc", "run", "sys", "usr/local/bin"} {
		t.folder(dir, 0o755)
	}
	t.symlink("var/run", "../run")
	t.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnginx:x:101:101:nginx:/nonexistent:/bin/false\nredis:x:999:999:redis:/data:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
	t.text("etc/group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnginx:x:101:\nredis:x:999:\nnogroup:x:65534:\n")
	return t, nil
}

// applets asks busybox for its commands.
func applets(ctx context.Context, program []byte) ([]string, error) {
	f, err := os.CreateTemp("", "pawl-busybox-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(program)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return nil, err
	}
	// Its first argument must be its name, or it takes itself for another command.
	cmd := exec.CommandContext(ctx, f.Name())
	cmd.Args = []string{"busybox", "--list"}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its commands: %w", err)
	}
	return strings.Fields(string(out)), nil
}

// distribution tells the machine's release, because packages depend on it.
func distribution() string {
	text, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "unknown"
	}
	return string(text)
}
