package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reader has input, and echoes it; beside that it serves a port.
const reader = `apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: "busybox:1", command: [sh, -c, "echo from the first"]}
  containers:
  - name: main
    image: busybox:1
    stdin: true
    command: [sh, -c, "while read -r x; do echo \"got $x\"; done"]
  - name: web
    image: busybox:1
    command: [sh, -c, "mkdir /www; dd if=/dev/zero of=/www/big bs=1048576 count=256 2>/dev/null; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"]
`

// both are the command lines of the two clients.
func (c *cluster) both(args ...string) map[string][]string {
	return map[string][]string{
		"kubectl": append([]string{"kubectl", "--kubeconfig", c.kubeconfig()}, args...),
		"pawl":    append([]string{pawlBin}, args...),
	}
}

// client starts a client that goes on until the test's end, or its own.
func (c *cluster) client(argv []string) (*exec.Cmd, io.WriteCloser, *lockedBuffer) {
	c.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = c.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, in, out
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// has is a check that out holds text by now.
func (l *lockedBuffer) has(text string) func() error {
	return func() error {
		if s := l.String(); !strings.Contains(s, text) {
			return fmt.Errorf("no %q in %q", text, s)
		}
		return nil
	}
}

// TestStreams: attach, also over a restart of everything, ports and logs, with
// both clients.
func TestStreams(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"reader.yaml": reader})
	c.running("reader", 1, 60*time.Second)
	for name, argv := range c.both("attach", "-i", "reader", "-c", "main") {
		_, in, out := c.client(argv)
		c.eventually(20*time.Second, name+" is attached", func() error {
			fmt.Fprintf(in, "one of %s\n", name)
			time.Sleep(50 * time.Millisecond)
			return out.has("got one of " + name)()
		})
	}
	c.kill()
	c.start()
	c.reached("reader", "main")
	for name, argv := range c.both("attach", "-i", "reader", "-c", "main") {
		cmd, in, out := c.client(argv)
		c.eventually(20*time.Second, name+" is attached again", func() error {
			fmt.Fprintf(in, "two of %s\n", name)
			time.Sleep(50 * time.Millisecond)
			return out.has("got two of " + name)()
		})
		in.Close()
		cmd.Wait()
	}
	for name, client := range c.clients() {
		for args, want := range map[string]string{
			"logs reader -c first":                                            "from the first\n",
			"logs reader --all-containers --prefix":                           "[pod/reader/first] from the first\n",
			"logs reader -c main --since-time=2020-01-01T00:00:00Z --tail=-1": "got two of pawl\n",
		} {
			if out, err := client(strings.Fields(args)...); err != nil || !strings.Contains(out, want) {
				t.Errorf("%s %s: %v, no %q in\n%s", name, args, err, want, out)
			}
		}
		if out, err := client("logs", "reader", "-c", "main", "--previous"); err == nil || !strings.Contains(out, `previous terminated container "main" in pod "reader" not found`) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	c.eventually(60*time.Second, "the pod's server serves", func() error {
		_, err := c.pawl("exec", "reader", "-c", "web", "--", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/index.html")
		return err
	})
	for name, argv := range c.both("port-forward", "reader", ":8080", ":81") {
		t.Run(name, func(t *testing.T) { c.forwards(t, argv) })
	}
}

// forwards uses the ports that a client forwards.
func (c *cluster) forwards(t *testing.T, argv []string) {
	cmd, _, out := c.client(argv)
	address := func(remote string) (at string) {
		c.eventually(20*time.Second, "it listens", func() error {
			for line := range strings.Lines(out.String()) {
				if before, after, ok := strings.Cut(line, " -> "); ok && strings.TrimSpace(after) == remote && strings.Contains(before, "127.0.0.1") {
					at = strings.TrimPrefix(before, "Forwarding from ")
					return nil
				}
			}
			return fmt.Errorf("it says %q", out.String())
		})
		return at
	}
	web, nothing := address("8080"), address("81")
	get := func(path string) (int64, error) {
		conn, err := net.Dial("tcp", web)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
		return io.Copy(io.Discard, conn)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if n, err := get("/index.html"); err != nil || n < 100 {
				t.Errorf("%d bytes: %v", n, err)
			}
		})
	}
	all.Wait()
	began := time.Now()
	n, err := get("/big")
	if took := time.Since(began); err != nil || n < 256<<20 {
		t.Errorf("%d bytes: %v", n, err)
	} else {
		t.Logf("%.0f MB/s on one connection", float64(n)/took.Seconds()/1e6)
	}
	if argv[0] == pawlBin { // one that nobody reads holds up no other
		idle, err := net.Dial("tcp", web)
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		fmt.Fprint(idle, "GET /big HTTP/1.0\r\n\r\n")
		last, same := 0, 0
		c.eventually(20*time.Second, "it is held back", func() error {
			now := unread(t, idle)
			if now != last {
				last, same = now, 0
			}
			if same++; now == 0 || same < 40 {
				return fmt.Errorf("%d bytes wait, %d looks long", now, same)
			}
			return nil
		})
		if n, err := get("/index.html"); err != nil || n < 100 {
			t.Errorf("beside one that is not read: %d bytes: %v", n, err)
		}
	}
	conn, err := net.Dial("tcp", nothing)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.Copy(io.Discard, conn)
	c.eventually(10*time.Second, "the client hears of the refusal", out.has("connection refused"))
	if argv[0] == pawlBin { // kubectl ends all of them
		if n, err := get("/index.html"); err != nil || n < 100 {
			t.Errorf("after a refusal: %d bytes: %v", n, err)
		}
	}
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
}

// TestCopy copies into a container and out of it, with both clients.
func TestCopy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"talk.yaml": barePod("talk", talker, "")})
	c.running("talk", 1, 60*time.Second)
	dir := filepath.Join(c.dir, "tree")
	for i := range 300 {
		path := filepath.Join(dir, fmt.Sprint(i%7), fmt.Sprintf("file %d", i))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, i*100), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("0/file 0", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := c.command(3*time.Minute, "", pawlBin, args...)
		if err != nil {
			t.Fatalf("pawl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	must("cp", dir, "talk:/new")
	must("cp", dir, "default/talk:/new", "-c", "main") // into it, by its name
	if out := must("exec", "talk", "--", "sh", "-c", "stat -c %a '/new/tree/3/file 3'; readlink /new/link; ls /new/tree | wc -l"); out != "640\n0/file 0\n8\n" {
		t.Errorf("in the container: %q", out)
	}
	back := filepath.Join(c.dir, "back")
	must("cp", "talk:/new/tree", back)
	if out, err := c.command(time.Minute, "", "diff", "-r", "--no-dereference", dir, back); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	must("cp", filepath.Join(dir, "1", "file 8"), "talk:/tmp/renamed")
	must("cp", "talk:/tmp/renamed", back)
	if text, err := os.ReadFile(filepath.Join(back, "renamed")); err != nil || len(text) != 800 {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	must("exec", "talk", "--", "sh", "-c", "mkdir /evil; ln -s /etc/hostname /evil/out; ln -s ../../../../../../etc /evil/up; mkfifo /evil/pipe; ln -s / /evil/root; mkdir /sub; ln -s /sub /to")
	out := must("cp", "talk:/evil", filepath.Join(c.dir, "evil"))
	for _, want := range []string{"out", "up", "pipe", "root"} {
		if !strings.Contains(out, want) {
			t.Errorf("no word of %s in %q", want, out)
		}
	}
	if left, err := os.ReadDir(filepath.Join(c.dir, "evil")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
	must("cp", filepath.Join(dir, "1", "file 8"), "talk:/evil/root/to/here") // by links of the container, in the container
	if out := must("exec", "talk", "--", "ls", "/sub"); out != "here\n" {
		t.Errorf("%q", out)
	}
	if _, err := os.Stat("/sub"); err == nil {
		t.Error("a link led out of the container")
	}
	for args, want := range map[string]string{
		"cp talk:/nosuch x":               "/nosuch: no such file or directory",
		"cp talk:/dev/null x":             "neither a file nor a directory",
		"cp nosuch:/x x":                  `pods "nosuch" not found`,
		"cp /etc/hostname talk:/nosuch/x": "/nosuch: no such file or directory",
		"cp a b":                          "must be in a pod",
		"cp /nosuch talk:/":               "no such file or directory",
		"cp /etc/hostname talk:/dev/null": "/dev/null",
	} {
		if out, err := c.pawl(strings.Fields(args)...); exitCode(err) != 1 || !strings.Contains(out, want) {
			t.Errorf("%s: %v, no %q in %s", args, err, want, out)
		}
	}
	// kubectl's own runs tar in the container, where there is one.
	if out, err := c.kubectl("cp", filepath.Join(dir, "1", "file 8"), "talk:/tmp/by-tar"); err != nil {
		t.Errorf("kubectl cp: %v\n%s", err, out)
	}
	if out, err := c.kubectl("cp", "talk:/tmp/by-tar", filepath.Join(c.dir, "by-tar")); err != nil {
		t.Errorf("kubectl cp: %v\n%s", err, out)
	}
	big := filepath.Join(c.dir, "big")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	f.Close()
	began := time.Now()
	must("cp", big, "talk:/tmp/big")
	up := time.Since(began)
	again := filepath.Join(c.dir, "big-back")
	began = time.Now()
	must("cp", "talk:/tmp/big", again)
	t.Logf("1 GiB: in %s in, in %s out", up, time.Since(began))
	if info, err := os.Stat(again); err != nil || info.Size() != 1<<30 {
		t.Error(err)
	}
	must("exec", "talk", "--", "rm", "/tmp/big")
}

// unread is how many bytes have come on a connection and were not read.
func unread(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var fault error
	if err := raw.Control(func(fd uintptr) { n, fault = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || fault != nil {
		t.Fatal(err, fault)
	}
	return n
}
