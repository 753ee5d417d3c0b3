package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

// of is the context of an instance whose token is there.
func of(t *testing.T, instance, server string) schema.ClientContext {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret-of-"+instance+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return schema.ClientContext{
		Instance: instance, Server: server, TokenFile: file, Repository: server + "/git/cluster.git",
		NATS:       schema.ClientNATS{URL: "nats://127.0.0.1:7422", CredsFile: "/creds"},
		Containerd: schema.ClientContainerd{Instance: instance},
	}
}

type home struct {
	t *testing.T
	w contextWriter
}

func newHome(t *testing.T) home {
	return home{t, contextWriter{home: t.TempDir(), log: slog.New(slog.DiscardHandler)}}
}

func (h home) write(c schema.ClientContext) schema.ClientContext {
	h.t.Helper()
	written, err := h.w.write(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return written
}

func (h home) read(path ...string) string {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{h.w.home}, path...)...))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// servers is which server each context of pawl and of kubectl leads to.
func (h home) servers() (pawl, kube map[string]string) {
	h.t.Helper()
	config, err := h.w.readPawl()
	if err != nil {
		h.t.Fatal(err)
	}
	pawl, kube = map[string]string{}, map[string]string{}
	for _, c := range config.Contexts {
		pawl[c.Name] = c.Server
	}
	var k struct {
		Clusters []struct {
			Name    string
			Cluster struct{ Server string }
		}
	}
	if err := yaml.Unmarshal([]byte(h.read("pawl", "kubeconfig")), &k); err != nil {
		h.t.Fatal(err)
	}
	for _, c := range k.Clusters {
		kube[c.Name] = c.Cluster.Server
	}
	return pawl, kube
}

func (h home) want(contexts map[string]string) {
	h.t.Helper()
	pawl, kube := h.servers()
	for name, server := range contexts {
		if pawl[name] != server || kube[name] != strings.Replace(server, "http://", "https://", 1) {
			h.t.Errorf("context %s leads to %q and, for kubectl, to %q, want %s", name, pawl[name], kube[name], server)
		}
		if !strings.Contains(h.read("pawl", filepath.Base(h.w.gitInclude(name))), server) {
			h.t.Errorf("Git's file of %s is not for %s", name, server)
		}
		h.read("nats", "context", name+".json")
	}
	if len(pawl) != len(contexts) || len(kube) != len(contexts) {
		h.t.Errorf("contexts: %v, %v, want %v", pawl, kube, contexts)
	}
}

func TestTheFirstInstanceIsCalledPawl(t *testing.T) {
	h := newHome(t)
	first, second := of(t, "pawl11111111", "http://127.0.0.1:1"), of(t, "pawl22222222", "http://127.0.0.1:2")
	if c := h.write(first); c.Name != "pawl" {
		t.Errorf("the first is called %s", c.Name)
	}
	if c := h.write(second); c.Name != "pawl22222222" {
		t.Errorf("the second is called %s", c.Name)
	}
	first.Server = "http://127.0.0.1:3" // moved
	h.write(first)
	h.want(map[string]string{"pawl": "http://127.0.0.1:3", "pawl22222222": "http://127.0.0.1:2"})
	// The first one is purged: the second keeps the name it is known by, a third takes pawl.
	os.Remove(first.TokenFile)
	h.write(second)
	h.write(of(t, "pawl33333333", "http://127.0.0.1:4"))
	h.want(map[string]string{"pawl": "http://127.0.0.1:4", "pawl22222222": "http://127.0.0.1:2"})
}

func TestTheDefaultInstanceIsAlwaysCalledPawl(t *testing.T) {
	h := newHome(t)
	h.write(of(t, "pawl11111111", "http://127.0.0.1:1"))
	if c := h.write(of(t, "pawl", "http://127.0.0.1:7420")); c.Name != "pawl" {
		t.Errorf("it is called %s", c.Name)
	}
	h.want(map[string]string{"pawl": "http://127.0.0.1:7420", "pawl11111111": "http://127.0.0.1:1"})
}

func TestWhatIsLeftForTools(t *testing.T) {
	h := newHome(t)
	c := of(t, "pawl", "https://127.0.0.1:7420")
	c.CAFile = `/a "strange" pl\ace;#/ca.crt`
	h.write(c)
	err := filepath.WalkDir(h.w.home, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == h.w.home {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if text, err := os.ReadFile(path); err == nil && filepath.Base(path) != "gitconfig" && strings.Contains(string(text), "secret-of") {
			t.Errorf("the token stands in %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"http.sslcainfo": c.CAFile, "http.extraheader": "Authorization: Bearer secret-of-pawl"} {
		out, err := exec.Command("git", "config", "--file", h.w.gitInclude("pawl"), "--get-urlmatch", key, c.Server+"/git/cluster.git").Output()
		if err != nil || strings.TrimSuffix(string(out), "\n") != want {
			t.Errorf("Git reads %s as %q, %v", key, out, err)
		}
	}
}

// What a person writes into the kubeconfig stays there.
func TestAKubeconfigIsAddedTo(t *testing.T) {
	h := newHome(t)
	c := of(t, "pawl", "http://127.0.0.1:7420")
	h.write(c)
	file := filepath.Join(h.w.home, "pawl", "kubeconfig")
	k, err := readKubeconfig(file)
	if err != nil {
		t.Fatal(err)
	}
	k.set("contexts", "mine", "context", map[string]any{"cluster": "pawl", "user": "pawl", "namespace": "a"})
	k.set("contexts", "pawl", "context", map[string]any{"cluster": "pawl", "user": "pawl", "namespace": "b"})
	k["current-context"] = "mine"
	k["preferences"] = map[string]any{"colors": true}
	text, err := k.text("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Server = "http://127.0.0.1:7999"
	h.write(c)
	got := h.read("pawl", "kubeconfig")
	for _, want := range []string{"current-context: mine", "namespace: a", "namespace: b", "name: mine", "colors: true", "server: https://127.0.0.1:7999", "tokenFile: " + c.TokenFile} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	for _, odd := range []string{"", "null\n", "contexts: 7\nclusters: {a: b}\nusers: [1, null, {name: pawl}]\n"} {
		os.WriteFile(file, []byte(odd), 0o600)
		h.write(c)
		h.want(map[string]string{"pawl": c.Server})
	}
	os.WriteFile(file, []byte("token: [secret-of-"), 0o600)
	if _, err := h.w.write(c); err == nil || strings.Contains(err.Error(), "secret-of") {
		t.Errorf("a broken file: %v", err)
	}
}
