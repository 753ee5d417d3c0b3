package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// natsBin builds the nats CLI from the module that pins it.
func natsBin(t testing.TB) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "nats")
	build := exec.Command("go", "build", "-o", bin, "github.com/nats-io/natscli/nats")
	build.Dir = "../../.ci/nats"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the nats CLI: %v\n%s", err, out)
	}
	return bin
}

// TestNATSCLI looks into the cluster as an operator does, with the context that
// `pawld up` wrote.
func TestNATSCLI(t *testing.T) {
	t.Parallel()
	bin := natsBin(t)
	c := newCluster(t)
	nats := func(args ...string) string {
		t.Helper()
		out, err := c.command(30*time.Second, "", bin, append([]string{"--context", "pawl"}, args...)...)
		if err != nil {
			t.Fatalf("nats %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	c.push(map[string]string{"nginx.yaml": nginxV1})
	pods := c.running("nginx-deployment-", 2, 60*time.Second)

	out := nats("kv", "ls")
	for _, bucket := range []string{"pawl-desired", "pawl-assignments", "pawl-actual", "pawl-leases"} {
		if !strings.Contains(out, bucket) {
			t.Errorf("nats kv ls does not list %s:\n%s", bucket, out)
		}
	}
	keys := nats("kv", "ls", "pawl-assignments")
	for name := range pods {
		key := "n1.default." + name
		if !strings.Contains(keys, key) {
			t.Errorf("nats kv ls pawl-assignments does not list %s:\n%s", key, keys)
		}
		if value := nats("kv", "get", "pawl-assignments", key, "--raw"); !strings.Contains(value, `"image":"nginx:1.7.9"`) {
			t.Errorf("the assignment of %s reads:\n%s", name, value)
		}
	}
	if desired := nats("kv", "get", "pawl-desired", "deployments.default.nginx-deployment", "--raw"); !strings.Contains(desired, "pawl.dev/revision") || !strings.Contains(desired, "nginx.yaml:1") {
		t.Errorf("the desired object does not say where it comes from:\n%s", desired)
	}

	watch := exec.Command(bin, "--context", "pawl", "kv", "watch", "pawl-actual", "pods.default.>")
	watch.Env = c.env()
	file, err := os.Create(filepath.Join(c.dir, "watch.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	watch.Stdout = file
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer watch.Wait()
	defer watch.Process.Kill()
	c.push(map[string]string{"more.yaml": sleepers("more", 1)})
	c.eventually(30*time.Second, "nats kv watch shows the new pod", func() error {
		text, err := os.ReadFile(file.Name())
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), "pods.default.more-") {
			return os.ErrNotExist
		}
		return nil
	})
}
