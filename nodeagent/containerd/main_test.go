package containerd

import (
	"context"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What every test uses, made once by TestMain: a private containerd, and a
// registry that stands in for docker.io.
var (
	testDaemon   *Daemon
	testRegistry *httptest.Server
	testDir      string
)

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nodeagent/containerd: "+err.Error())
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	flag.Parse()
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("these tests run real containers and need root")
	}
	for _, tool := range []string{"containerd", "runc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 1, fmt.Errorf("%w: these tests run the real one (Debian packages containerd and runc)", err)
		}
	}
	// A short path: sockets have room for 107 bytes.
	if testDir, err = os.MkdirTemp("", "pc"); err != nil {
		return 1, err
	}
	if err := os.Chmod(testDir, 0o711); err != nil { // pods with users of their own must get through
		return 1, err
	}
	defer func() {
		if e := clearTestDir(testDir); e != nil && err == nil {
			code, err = 1, e
		}
	}()
	if flag.Lookup("test.bench").Value.String() != "" {
		if err := mountRun(filepath.Join(testDir, "r")); err != nil {
			return 1, err
		}
	}
	testRegistry, err = serveImages()
	if err != nil {
		return 1, err
	}
	defer testRegistry.Close()
	testDaemon = NewDaemon(DaemonOptions{DataDir: filepath.Join(testDir, "d", "c"), RunDir: filepath.Join(testDir, "r", "c")})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := testDaemon.Start(ctx); err != nil {
		return 1, err
	}
	done := make(chan error, 1)
	go func() { done <- testDaemon.Run(ctx) }()
	code = m.Run()
	cancel()
	if err := <-done; err != nil {
		return 1, err
	}
	stop, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return code, testDaemon.Stop(stop)
}

// mountRun makes the place of the run directories a file system in memory, as
// /run is on the machines that are measured for; it is not on every machine that
// measures.
func mountRun(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=711"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// clearTestDir removes what the tests left, mounts first, deepest first.
func clearTestDir(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := unix.Unmount(mounts[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", mounts[i], err)
		}
	}
	return os.RemoveAll(dir)
}

func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			found = append(found, f[4])
		}
	}
	return found, nil
}
