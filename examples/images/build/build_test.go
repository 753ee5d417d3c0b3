package build

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// TestServe pulls by the names that manifests use.
func TestServe(t *testing.T) {
	url, stop, err := Serve(t.Context(), "busybox")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	pull := func(image string) (v1.Image, error) {
		ref, err := name.ParseReference(strings.TrimPrefix(url, "http://")+"/library/"+image, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		return remote.Image(ref, remote.WithContext(t.Context()))
	}
	for _, image := range []string{"busybox", "busybox:1", "nginx:1.7.9", "nginx", "redis:5.0.4", "hello"} {
		pulled, err := pull(image)
		if err != nil {
			t.Errorf("%s: %v", image, err)
			continue
		}
		built, err := Images(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := built[image].Digest()
		if got, err := pulled.Digest(); got != want || err != nil {
			t.Errorf("%s: pulled %s, built %s: not the same each time (%v)", image, got, want, err)
		}
	}
	for _, image := range []string{"no-such-image:1", "nginx:0.0.1"} {
		var answer *transport.Error
		if _, err := pull(image); !errors.As(err, &answer) || answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, want 404", image, err)
		}
	}
}

func TestEveryNameIsKnown(t *testing.T) {
	for _, image := range Names() {
		if !Known(image) {
			t.Errorf("%s is listed and not known", image)
		}
	}
	if Known("nginx:0.0.1") || Known("nginx@sha256:00") || Known("") {
		t.Error("an image that cannot be built is known")
	}
}

func TestHello(t *testing.T) {
	c := start(t, "hello:2", []string{"GREETING=Ahoy"})
	c.until(":8080", "/healthz", "ok")
	if got := c.get(":8080", "/"); !strings.HasPrefix(got, "Ahoy from ") || !strings.HasSuffix(got, ", version 2\n") {
		t.Errorf("/ is %q", got)
	}
	if got := c.get(":8080", "/env?name=GREETING"); got != "Ahoy\n" {
		t.Errorf("/env is %q", got)
	}
	c.stop(syscall.SIGTERM, 0)

	c = start(t, "hello", nil)
	c.until(":8080", "/healthz", "ok")
	c.send(":8080", "GET /exit?code=7 HTTP/1.0\r\n\r\n")
	c.wait(7)
}

func TestNginx(t *testing.T) {
	c := start(t, "nginx:1.16.1", nil)
	c.until(":80", "/", "This is image nginx:1.16.1.")
	if got := c.get(":80", "/nothing"); !strings.Contains(got, "404 Not Found") {
		t.Errorf("/nothing is %q", got)
	}
	c.stop(syscall.SIGQUIT, 0)
}

func TestRedis(t *testing.T) {
	c := start(t, "redis:5.0.4", nil)
	c.eventually("redis answers", func() error {
		if got := c.send(":6379", "SET k v\r\nGET k\r\nQUIT\r\n"); got != "+OK\r\n$1\r\nv\r\n+OK\r\n" {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
	if got := c.send(":6379", "CONFIG GET protected-mode\r\nQUIT\r\n"); !strings.Contains(got, "\r\nno\r\n") {
		t.Errorf("protected-mode: %q, and other pods are refused", got)
	}
	c.stop(syscall.SIGTERM, 0)
}

func TestBusybox(t *testing.T) {
	c := startCommand(t, "busybox", nil, []string{"/bin/sh", "-c", "echo hi | /usr/bin/wc -c && test -x /sbin/ip && exit 3"})
	c.wait(3)
	if got := c.output(); strings.TrimSpace(got) != "3" {
		t.Errorf("it says %q", got)
	}
}

// A contained is an image's command that runs in a root and a network of its
// own: as much of a container as these tests need.
type contained struct {
	t     *testing.T
	root  string
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended
	run   chan func()   // runs in its network namespace
}

func start(t *testing.T, image string, env []string) *contained {
	t.Helper()
	return startCommand(t, image, env, nil)
}

func startCommand(t *testing.T, image string, env, command []string) *contained {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it runs what it built in a root directory of its own")
	}
	images, err := Images(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	c := &contained{t: t, root: t.TempDir(), ended: make(chan struct{}), run: make(chan func())}
	c.unpack(images[image])
	config, err := images[image].ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if command == nil {
		command = append(config.Config.Entrypoint, config.Config.Cmd...)
	}
	c.cmd = &exec.Cmd{
		Path:        c.find(command[0]),
		Args:        command,
		Env:         append(config.Config.Env, env...),
		Dir:         "/" + strings.TrimPrefix(config.Config.WorkingDir, "/"),
		SysProcAttr: &syscall.SysProcAttr{Chroot: c.root, Pdeathsig: syscall.SIGKILL, Setpgid: true},
	}
	out, err := os.Create(filepath.Join(c.root, "output"))
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout, c.cmd.Stderr = out, out
	started := make(chan error)
	go c.live(started)
	if err := <-started; err != nil {
		t.Fatalf("start %v: %v", command, err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.ended
		close(c.run)
		out.Close()
	})
	return c
}

// live is the thread that the process is a child of, in a network of its own.
func (c *contained) live(started chan<- error) {
	runtime.LockOSThread() // the thread ends with the goroutine
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		err = loopbackUp()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	started <- err
	if err != nil {
		return
	}
	go func() {
		c.cmd.Wait()
		close(c.ended)
	}()
	for f := range c.run {
		f()
	}
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo)
}

// find finds the command as a shell in the root would.
func (c *contained) find(command string) string {
	if strings.HasPrefix(command, "/") {
		return command
	}
	for _, dir := range []string{"/usr/local/bin/", "/bin/"} {
		if _, err := os.Lstat(filepath.Join(c.root, dir, command)); err == nil {
			return dir + command
		}
	}
	c.t.Fatalf("%s is not in the image", command)
	return ""
}

// unpack writes the image's files, and the devices that a runtime would make.
func (c *contained) unpack(image v1.Image) {
	c.t.Helper()
	reader := mutate.Extract(image)
	defer reader.Close()
	for files := tar.NewReader(reader); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			c.t.Fatal(err)
		}
		at := filepath.Join(c.root, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(at, 0o755)
			if err == nil {
				err = os.Chmod(at, h.FileInfo().Mode())
			}
		case tar.TypeSymlink:
			err = errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(h.Linkname, at))
		default:
			var data []byte
			data, err = io.ReadAll(files)
			err = errors.Join(err, os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, data, h.FileInfo().Mode()))
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	dev := filepath.Join(c.root, "dev")
	if err := os.MkdirAll(dev, 0o755); err != nil {
		c.t.Fatal(err)
	}
	for name, device := range map[string]uint64{"null": unix.Mkdev(1, 3), "urandom": unix.Mkdev(1, 9)} {
		if err := unix.Mknod(filepath.Join(dev, name), unix.S_IFCHR|0o666, int(device)); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, name := range []string{"stdout", "stderr"} {
		if err := os.WriteFile(filepath.Join(dev, name), nil, 0o666); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *contained) output() string {
	text, err := os.ReadFile(filepath.Join(c.root, "output"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// send connects from within, sends text and returns the whole answer.
func (c *contained) send(address, text string) string {
	answer := make(chan string)
	c.run <- func() {
		var all []byte
		conn, err := net.DialTimeout("tcp4", "127.0.0.1"+address, time.Second)
		if err == nil {
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			io.WriteString(conn, text)
			all, _ = io.ReadAll(conn)
			conn.Close()
		}
		go func() { answer <- string(all) }()
	}
	return <-answer
}

func (c *contained) get(address, path string) string {
	answer := c.send(address, "GET "+path+" HTTP/1.0\r\nHost: x\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return string(body)
}

func (c *contained) until(address, path, want string) {
	c.t.Helper()
	c.eventually(path+" answers", func() error {
		if got := c.get(address, path); !strings.Contains(got, want) {
			return fmt.Errorf("it says %q", got)
		}
		return nil
	})
}

func (c *contained) eventually(what string, check func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v\nit printed:\n%s", what, err, c.output())
}

func (c *contained) stop(signal syscall.Signal, code int) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(signal); err != nil {
		c.t.Fatal(err)
	}
	c.wait(code)
}

func (c *contained) wait(code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.t.Fatalf("it does not end; it printed:\n%s", c.output())
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("exit code %d, want %d; it printed:\n%s", got, code, c.output())
	}
}
