package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The front door seen with the tools people have: Debian's kubectl with the
// kubeconfig that `pawld up` writes, and pawl.

func (c *cluster) kubeconfig() string { return filepath.Join(c.dir, "pawl", "kubeconfig") }

func (c *cluster) kubectl(args ...string) (string, error) {
	return c.command(60*time.Second, "", "kubectl", append([]string{"--kubeconfig", c.kubeconfig()}, args...)...)
}

// clients are the two programs that must give the same answers.
func (c *cluster) clients() map[string]func(args ...string) (string, error) {
	return map[string]func(...string) (string, error){"kubectl": c.kubectl, "pawl": c.pawl}
}

// exitCode is that of a command that ended; -1 for another error.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// talker writes a line to each of its streams and then one a second.
const talker = `echo out one; echo err one >&2; echo out two; i=0; trap 'exit 0' TERM; while :; do i=$((i+1)); echo tick $i; sleep 1; done`

func TestFrontDoorReads(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{
		"web.yaml":  sleepers("web", 2),
		"talk.yaml": barePod("talk", talker, ""),
		"conf.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: conf\ndata:\n  colour: blue\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: hush\nstringData:\n  word: sesame\n",
	})
	c.running("web-", 2, 60*time.Second)
	c.running("talk", 1, 60*time.Second)

	for name, client := range c.clients() {
		t.Run(name, func(t *testing.T) {
			for _, q := range []struct {
				args string
				want []string
			}{
				{"get pods", []string{"NAME", "READY", "STATUS", "RESTARTS", "AGE", "1/1", "Running", "talk"}},
				{"get pods -o wide", []string{"IP", "NODE", "n1"}},
				{"get deployments,rs,nodes", []string{"deployment.apps/web", "2/2", "replicaset.apps/web-", "node/n1", "Ready"}},
				{"get all", []string{"pod/talk", "deployment.apps/web"}},
				{"get deploy web -o jsonpath={.metadata.annotations.pawl\\.dev/source}", []string{"web.yaml:1"}},
				{"get pod talk -o yaml", []string{"pawl.dev/revision", "pawl.dev/author", "Ada <ada@example.org>", "phase: Running"}},
				{"get secret hush -o jsonpath={.data.word}", []string{"c2VzYW1l"}},
				{"get pods -l app=web -o name", []string{"pod/web-"}},
				{"get pods --field-selector=metadata.name=talk --no-headers", []string{"talk"}},
				{"describe deploy web", []string{"StrategyType:", "RollingUpdate", "Available", "MinimumReplicasAvailable", "ScalingReplicaSet"}},
				{"describe pod talk", []string{"Node:", "n1/", "Started container main", "Scheduled", "QoS Class:"}},
				{"describe node n1", []string{"Capacity:", "Non-terminated Pods:", "talk"}},
				{"get events", []string{"REASON", "Scheduled", "Started"}},
				{"get ns", []string{"default", "Active"}},
				{"rollout status deploy/web", []string{`deployment "web" successfully rolled out`}},
				{"rollout history deploy/web", []string{"REVISION", "CHANGE-CAUSE", "1"}},
				{"wait --for=condition=Ready pod/talk --timeout=10s", []string{"pod/talk condition met"}},
				{"api-resources", []string{"deployments", "deploy", "pods", "po"}},
				{"api-versions", []string{"apps/v1", "v1"}},
				{"explain deployment.spec.replicas", []string{"FIELD: replicas <integer>"}},
				{"auth can-i delete pods", []string{"yes"}},
				{"logs talk", []string{"out one", "err one", "out two"}},
				{"logs talk --tail=1", []string{"tick"}},
				{"exec talk -- echo hello", []string{"hello"}},
			} {
				// What the cluster says of pods that run comes after them: statuses, Events.
				c.in(t).eventually(30*time.Second, q.args, func() error {
					out, err := client(strings.Fields(q.args)...)
					if err != nil {
						return fmt.Errorf("%w\n%s", err, out)
					}
					for _, w := range q.want {
						if !strings.Contains(out, w) {
							return fmt.Errorf("no %q in\n%s", w, out)
						}
					}
					return nil
				})
			}
			for _, q := range []struct {
				args string
				want string
			}{
				{"get pod nosuch", `Error from server (NotFound): pods "nosuch" not found`},
				{"get nosuch", `the server doesn't have a resource type "nosuch"`},
				{"delete deploy web", "git"},
				{"delete configmap conf", "conf.yaml"},
			} {
				out, err := client(strings.Fields(q.args)...)
				if exitCode(err) != 1 || !strings.Contains(out, q.want) {
					t.Errorf("%s: exit code %d, want 1 and %q in\n%s", q.args, exitCode(err), q.want, out)
				}
			}
			if out, err := client("exec", "talk", "--", "sh", "-c", "exit 42"); exitCode(err) != 42 {
				t.Errorf("exec of exit 42: exit code %d\n%s", exitCode(err), out)
			}
		})
	}
}

// TestFrontDoorRefusesStrangers asks every path without a credential.
func TestFrontDoorRefusesStrangers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, path := range []string{"/api", "/apis", "/api/v1/pods", "/api/v1/namespaces/default/secrets", "/openapi/v3", "/version", "/metrics", "/debug/pprof/", "/nosuch", "/git/cluster.git/info/refs?service=git-upload-pack"} {
		response, err := http.Get("http://" + c.http + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: %s, want 401\n%s", path, response.Status, body)
		}
		if len(body) > 500 {
			t.Errorf("%s: tells a stranger %d bytes:\n%s", path, len(body), body)
		}
	}
}

// TestExecStreams runs commands with input, with a terminal, many at once, and
// kills a client in the middle: its process goes with it.
func TestExecStreams(t *testing.T) {
	c := newCluster(t)
	c.push(map[string]string{"talk.yaml": barePod("talk", talker, "")})
	c.running("talk", 1, 60*time.Second)

	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	for name, argv := range map[string][]string{
		"kubectl": {"kubectl", "--kubeconfig", c.kubeconfig(), "exec", "-i", "talk", "--", "cat"},
		"pawl":    {pawlBin, "exec", "-i", "talk", "--", "cat"},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env, cmd.Stdin = c.env(), bytes.NewReader(big)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil || !bytes.Equal(out, big) {
			t.Errorf("%s: cat of %d bytes gave %d: %v\n%s", name, len(big), len(out), err, stderr.String())
		}
	}

	type result struct {
		out string
		err error
	}
	results := make(chan result)
	for i := range 8 {
		go func() {
			out, err := c.pawl("exec", "talk", "--", "sh", "-c", fmt.Sprintf("echo %d; exit %d", i, i))
			results <- result{fmt.Sprintf("%d %s", i, strings.TrimSpace(out)), err}
		}()
	}
	for range 8 {
		r := <-results
		i, out, _ := strings.Cut(r.out, " ")
		first, _, _ := strings.Cut(out, "\n")
		if first != i || fmt.Sprint(exitCode(r.err)) != i {
			t.Errorf("command %s: exit code %d, printed %q", i, exitCode(r.err), out)
		}
	}

	seconds := 1_000_000 + os.Getpid() // of no other run of these tests on the machine
	// script(1) gives the client a terminal.
	client := exec.Command("script", "-qec", fmt.Sprintf("%s exec -it talk -- sleep %d", pawlBin, seconds), "/dev/null")
	client.Env = c.env()
	client.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	c.eventually(30*time.Second, "the command runs in the container", func() error { return c.sleeps(seconds, true) })
	killClients(t, fmt.Sprint(seconds))
	client.Wait() //nolint:errcheck // it was killed
	c.eventually(20*time.Second, "the command ended with its client", func() error { return c.sleeps(seconds, false) })
}

// killClients kills every pawl of this run with the argument. Its terminal's end
// is not enough: whoever runs these tests may have SIGHUP ignored (nohup).
func killClients(t *testing.T, argument string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(text), pawlBin+"\x00") || !strings.Contains(string(text), "\x00"+argument+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

// sleeps says whether a `sleep seconds` is among the machine's processes, if
// that is not as wanted.
func (c *cluster) sleeps(seconds int, want bool) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && string(text) == fmt.Sprintf("sleep\x00%d\x00", seconds) {
			if want {
				return nil
			}
			return fmt.Errorf("%s is there", f)
		}
	}
	if want {
		return fmt.Errorf("no sleep %d", seconds)
	}
	return nil
}

// TestLogsFollow follows a container's output over its restart's end.
func TestLogsFollow(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"count.yaml": barePod("count", `for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done`, "  restartPolicy: Never")})
	c.eventually(30*time.Second, "the container was started", func() error {
		for _, p := range c.pods("count") {
			if len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting == nil {
				return nil
			}
		}
		return errors.New("not yet")
	})
	for name, client := range c.clients() {
		out, err := client("logs", "-f", "count")
		if err != nil || out != "line 1\nline 2\nline 3\nline 4\nline 5\n" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	out, err := c.pawl("logs", "count", "--timestamps", "--tail=1")
	if stamp, rest, _ := strings.Cut(out, " "); err != nil || rest != "line 5\n" {
		t.Errorf("timestamps: %v\n%s", err, out)
	} else if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
		t.Error(err)
	}
}

// TestDeletePod restarts a managed pod and a bare one.
func TestDeletePod(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"web.yaml": sleepers("web", 1), "apps/bare.yaml": barePod("bare", "trap 'exit 0' TERM; while :; do sleep 0.1; done", "")})
	web := c.running("web-", 1, 60*time.Second)
	bare := c.running("bare", 1, 60*time.Second)["bare"]
	for name := range web {
		out, err := c.kubectl("delete", "pod", name)
		if err != nil || !strings.Contains(out, fmt.Sprintf(`pod "%s" deleted`, name)) {
			t.Errorf("delete: %v\n%s", err, out)
		}
		if _, ok := c.running("web-", 1, 30*time.Second)[name]; ok {
			t.Errorf("pod %s is still there", name)
		}
	}
	out, err := c.pawl("delete", "pod", "bare")
	if err != nil || !strings.Contains(out, "apps/bare.yaml") || !strings.Contains(strings.ToLower(out), "warning") {
		t.Errorf("delete: %v\n%s", err, out)
	}
	if again := c.running("bare", 1, 30*time.Second)["bare"]; again.UID == bare.UID {
		t.Error("the bare pod was not made again")
	}
}

// TestServerIsNotThere reads what a person reads whose cluster is down.
func TestServerIsNotThere(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.kill()
	defer c.start()
	out, err := c.pawl("get", "pods")
	if exitCode(err) != 1 || strings.Count(out, "\n") > 2 || !strings.Contains(out, "pawld up") || !strings.Contains(out, c.http) {
		t.Errorf("exit code %d\n%s", exitCode(err), out)
	}
}

// get asks the front door as the administrator.
func (c *cluster) get(ctx context.Context, path string, header map[string]string) (*http.Response, error) {
	token, err := os.ReadFile(filepath.Join(c.data, "token"))
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.http+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	for k, v := range header {
		request.Header.Set(k, v)
	}
	return http.DefaultClient.Do(request)
}
