package main

import (
	"bytes"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/reconciler/access"
)

// started is an instance as a daemon with that front door leaves it.
func started(t *testing.T, listen string) (data string, a *access.Access) {
	t.Helper()
	c := &upConfig{instance: instance{data: filepath.Join(t.TempDir(), "data"), run: filepath.Join(t.TempDir(), "run")}, http: listen}
	if err := c.instance.open(); err != nil {
		t.Fatal(err)
	}
	a, err := c.access(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.leaveDoor(a); err != nil {
		t.Fatal(err)
	}
	return c.data, a
}

// pawld runs a command and returns what it printed.
func pawld(args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	root := newRoot()
	root.SetOut(&o)
	root.SetErr(&e)
	root.SetArgs(args)
	err = root.Execute()
	return o.String(), e.String(), err
}

func TestTokensOnTheCommandLine(t *testing.T) {
	data, _ := started(t, "127.0.0.1:7420")
	secret, note, err := pawld("token", "create", "ada", "--role", "view", "--ttl", "90d", "--data", data)
	if err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(secret)) != 1 || strings.Contains(note, strings.TrimSpace(secret)) || !strings.Contains(note, "ada, role view, good until ") {
		t.Errorf("%q, %q", secret, note)
	}
	list, _, err := pawld("token", "list", "--data", data)
	if err != nil || !strings.HasPrefix(list, "NAME   ROLE   CREATED") || !strings.Contains(list, "\nada    view   ") || strings.Contains(list, strings.TrimSpace(secret)) {
		t.Errorf("%s %v", list, err)
	}
	if out, _, err := pawld("token", "revoke", "ada", "--data", data); err != nil || out != "token ada is revoked\n" {
		t.Errorf("%s %v", out, err)
	}
	if out, note, err := pawld("token", "list", "--data", data); err != nil || out != "" || note != "No token was made yet.\n" {
		t.Errorf("%q %q %v", out, note, err)
	}
	for want, args := range map[string][]string{
		"must be one of view, admin": {"token", "create", "ada", "--data", data},
		"no token named":             {"token", "revoke", "ada", "--data", data},
		"want 1 to 63 letters":       {"token", "create", "a b", "--role", "view", "--data", data},
		"no instance is in":          {"token", "list", "--data", t.TempDir()},
		"want a duration":            {"token", "create", "ada", "--role", "view", "--ttl", "soon", "--data", data},
		"want a number of days":      {"token", "create", "ada", "--role", "view", "--ttl", "-1d", "--data", data},
		"want a second or more":      {"token", "create", "ada", "--role", "view", "--ttl", "-1h", "--data", data},
	} {
		if out, _, err := pawld(args...); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%v: %q %v", args, out, err)
		}
	}
}

func TestAKubeconfigForAnotherMachine(t *testing.T) {
	data, a := started(t, "0.0.0.0:7420")
	out, _, err := pawld("kubeconfig", "--user", "ada", "--role", "view", "--data", data)
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		Clusters []struct{ Cluster map[string]string }
		Users    []struct{ User map[string]string }
	}
	if err := yaml.Unmarshal([]byte(out), &k); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(access.CAFile(data))
	if err != nil {
		t.Fatal(err)
	}
	if c := k.Clusters[0].Cluster; c["server"] != a.RemoteURL() || c["certificate-authority-data"] != base64.StdEncoding.EncodeToString(ca) {
		t.Errorf("%v", c)
	}
	if u := k.Users[0].User; u["client-certificate-data"] == "" || u["client-key-data"] == "" || len(u) != 2 {
		t.Errorf("%d fields of the user", len(u))
	}
	if out, _, err = pawld("kubeconfig", "--user", "ada", "--role", "view", "--data", data, "--server", "https://pawl.example.org:1"); err != nil || !strings.Contains(out, "server: https://pawl.example.org:1\n") {
		t.Errorf("%v", err)
	}
	plain, _ := started(t, "127.0.0.1:7420")
	for want, args := range map[string][]string{
		"plain HTTP":                 {"--user", "ada", "--role", "view", "--data", plain},
		"want https://":              {"--user", "ada", "--role", "view", "--data", data, "--server", "http://x"},
		"want 1 to 63":               {"--role", "view", "--data", data},
		"must be one of":             {"--user", "ada", "--data", data},
		"no instance is in":          {"--user", "ada", "--role", "view", "--data", t.TempDir()},
		"--ttl 0s: want a second":    {"--user", "ada", "--role", "view", "--data", data, "--ttl", "0d"},
		"user name \"system:admin\"": {"--user", "system:admin", "--role", "view", "--data", data},
	} {
		if out, _, err := pawld(append([]string{"kubeconfig"}, args...)...); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%v: %q %v", args, out, err)
		}
	}
}

func TestLifetimesAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "12h0m0s": 12 * time.Hour, "1m30s": 90 * time.Second} {
		var l lifetime
		if err := l.Set(text); err != nil || time.Duration(l) != want || l.String() != text {
			t.Errorf("%s: %s %v", text, l.String(), err)
		}
	}
}
