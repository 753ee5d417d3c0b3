package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

func twoContexts(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t, "")
	d.configure(schema.ClientConfig{Current: "home", Contexts: []schema.ClientContext{
		{Name: "home", Server: "http://127.0.0.1:1", Repository: "http://127.0.0.1:1/git/cluster.git"},
		{Name: "staging", Server: "https://staging:7420", TokenFile: "/t"},
	}})
	return d
}

func TestContexts(t *testing.T) {
	d := twoContexts(t)
	list := func(home, staging string) string {
		return "CURRENT   NAME      SERVER                 REPOSITORY\n" +
			fmt.Sprintf("%-9s home      http://127.0.0.1:1     http://127.0.0.1:1/git/cluster.git\n", home) +
			fmt.Sprintf("%-9s staging   https://staging:7420   \n", staging)
	}
	d.wants("context", list("*", ""), "", 0)
	d.wants("context use staging", "context staging is the current one now\n", "", 0)
	d.wants("context", list("", "*"), "", 0)
	d.wants("context --context home", list("*", ""), "", 0)
	d.env["PAWL_CONTEXT"] = "home"
	d.wants("context", list("*", ""), "", 0)
	delete(d.env, "PAWL_CONTEXT")
	d.wants("context show home", "containerd: {}\nname: home\nnats:\n  credsFile: \"\"\n  url: \"\"\nrepository: http://127.0.0.1:1/git/cluster.git\nserver: http://127.0.0.1:1\ntokenFile: \"\"\n", "", 0)

	d.wants("context rename staging prod", "context staging is called prod now\n", "", 0)
	d.wants("context rename prod home", "", "error: there is a context home already\n", 1)
	for _, line := range [][]string{{"context", "use", ""}, {"context", "remove", ""}, {"context", "rename", "", "x"}} {
		if _, stderr, code := d.pawl(line...); stderr != "error: a context has a name: see pawl context\n" || code != 1 {
			t.Errorf("%q: %q, exit code %d", line, stderr, code)
		}
	}
	d.wants("context use nosuch", "", fmt.Sprintf("error: there is no context \"nosuch\" in %s (there are: home, prod)\n", d.file()), 1)
	d.wants("get pods --context nosuch", "", fmt.Sprintf("error: there is no context \"nosuch\" in %s (there are: home, prod)\n", d.file()), 1)
	d.wants("context remove prod", "context prod removed\n", "", 0)
	d.wants("get pods", "", "error: there is no current context; choose one with: pawl context use NAME (there are: home)\n", 1)

	info, err := os.Stat(d.file())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want it readable by its owner alone", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(d.file())); err != nil || len(entries) != 1 {
		t.Errorf("beside the file: %v, %v", entries, err)
	}
}

func TestNoContextFile(t *testing.T) {
	d := newDesk(t, "")
	want := "error: no cluster is known here: there is no " + d.file() + ". Start one with: pawld up\n"
	for _, line := range append([]string{"context", "context use x"}, verbs...) {
		d.wants(line, "", want, 1)
	}
	d.wants("version", "Client Version: dev\n", "", 0)
}

func TestServerWithoutContext(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	d := newDesk(t, "")
	d.wants("get pods --no-headers --token-file "+filepath.Join(d.home, "token")+" -s "+s.Listener.Addr().String(), "web-1   Running\n", "", 0)
}

func TestVerbsThatAreCommits(t *testing.T) {
	d := twoContexts(t)
	d.wants("apply -f web.yaml", "", "error: pawl has no apply: desired state is changed by git push alone; the repository is http://127.0.0.1:1/git/cluster.git\n", 1)
	d.wants("rollout undo deploy/web", "", "error: pawl has no rollout undo: desired state is changed by git push alone; the repository is http://127.0.0.1:1/git/cluster.git\n", 1)
	newDesk(t, "").wants("scale deploy/web --replicas=3", "", "error: pawl has no scale: desired state is changed by git push alone\n", 1)
	newDesk(t, "").wants("drain n1", "", "error: pawl has no drain: nodes cannot be taken out of service by hand yet\n", 1)
	d.wants("hystory", "", "error: unknown command \"hystory\" for \"pawl\"\n\nDid you mean this?\n\thistory\n", 1)
}
