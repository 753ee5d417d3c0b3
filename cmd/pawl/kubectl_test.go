package main

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/pawl-project/pawl/cmd/pawl/quickstart"
)

const podTable = `{"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "7"},
	"columnDefinitions": [{"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}, {"name": "Status", "type": "string", "format": "", "description": "", "priority": 0}],
	"rows": [{"cells": ["web-1", "Running"], "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "web-1", "namespace": "default"}}}]}`

func TestGetAsksOnceForWhatStays(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	d := newDesk(t, s.URL)
	const want = "NAME    STATUS\nweb-1   Running\n"
	d.wants("get pods", want, "", 0)
	if asked := s.forget(); !slices.Equal(asked, []string{"GET /api", "GET /api/v1/namespaces/default/pods", "GET /apis"}) {
		t.Errorf("the first command asked %q", asked)
	}
	d.wants("get po", want, "", 0)
	if asked := s.forget(); !slices.Equal(asked, []string{"GET /api/v1/namespaces/default/pods"}) {
		t.Errorf("the second command asked %q", asked)
	}
	d.wants("get nosuch", "", "error: the server doesn't have a resource type \"nosuch\"\n", 1)
	if asked := s.forget(); !slices.Contains(asked, "GET /apis") {
		t.Errorf("a kind that is not known was not asked for again: %q", asked)
	}
}

// TestKubeconfigStaysOut: what kubectl would read leads to a server that is not there.
func TestKubeconfigStaysOut(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	d := newDesk(t, s.URL)
	kubeconfig := filepath.Join(t.TempDir(), ".kube", "config")
	if err := replaceFile(kubeconfig, []byte("apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: x, context: {cluster: x, namespace: other}}]\n")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", kubeconfig)
	t.Setenv("HOME", filepath.Dir(filepath.Dir(kubeconfig)))
	t.Setenv("KUBERNETES_MASTER", "http://127.0.0.1:1")
	d.wants("get pods --no-headers", "web-1   Running\n", "", 0)
	if entries, err := os.ReadDir(filepath.Dir(kubeconfig)); err != nil || len(entries) != 1 {
		t.Errorf("pawl wrote below ~/.kube: %v, %v", entries, err)
	}
}

// all is every command, root first.
func all(root *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{root}
	for _, sub := range root.Commands() {
		out = append(out, all(sub)...)
	}
	return out
}

func commands() []*cobra.Command {
	env := func(string) string { return "" }
	return all(newRoot(newCluster(env), genericiooptions.NewTestIOStreamsDiscard()))
}

// foreign is what no text may say: programs and files that are not Pawl's. Pages
// of Kubernetes and annotations' names stay.
var foreign = regexp.MustCompile(`(?i)kubectl|kubeconfig|\.kube/|kubelet`)

func TestEveryTextSaysPawl(t *testing.T) {
	for _, cmd := range commands() {
		texts := []string{cmd.UseLine(), cmd.Short, cmd.Long, cmd.Example, cmd.Deprecated}
		flags := func(f *pflag.Flag) { texts = append(texts, f.Name+": "+f.Usage+" "+f.Deprecated) }
		cmd.Flags().VisitAll(flags)
		cmd.PersistentFlags().VisitAll(flags)
		var help strings.Builder
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil {
			t.Error(err)
		}
		for _, text := range append(texts, help.String()) {
			text = regexp.MustCompile(`\S*kubernetes\.io\S*`).ReplaceAllString(text, "")
			if found := foreign.FindString(text); found != "" {
				t.Errorf("%s speaks of %s:\n%s", cmd.CommandPath(), found, text)
			}
		}
	}
}

func TestRenamed(t *testing.T) {
	for text, want := range map[string]string{
		"See 'kubectl auth can-i -h'":                            "See 'pawl auth can-i -h'",
		"kubectl get\n\tkubectl logs":                            "pawl get\n\tpawl logs",
		"the kubectl.kubernetes.io/default-container annotation": "the kubectl.kubernetes.io/default-container annotation",
		"[https://kubernetes.io/kubectl/kubectl-x], or kubectl":  "[https://kubernetes.io/kubectl/kubectl-x], or pawl",
		"nothing to say": "nothing to say",
	} {
		if got := renamed(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// Only a command is called another name: not what people gave theirs, such as a pod.
func TestRenamedMessages(t *testing.T) {
	for text, want := range map[string]string{
		"error: (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource')": "error: (e.g. 'pawl get resource/<resource_name>' instead of 'pawl get resource')",
		"See 'kubectl auth can-i -h' for help\nkubectl logs":                                     "See 'pawl auth can-i -h' for help\npawl logs",
		`Error from server (NotFound): pods "kubectl-test" not found`:                            `Error from server (NotFound): pods "kubectl-test" not found`,
		`Error from server (NotFound): pods "kubectl" not found`:                                 `Error from server (NotFound): pods "kubectl" not found`,
		"error: open kubectl.txt: no such file or directory":                                     "error: open kubectl.txt: no such file or directory",
		"error: container my-kubectl is not valid for pod kubectl":                               "error: container my-kubectl is not valid for pod kubectl",
	} {
		d := &strings.Builder{}
		newCluster(func(string) string { return "" }).tell(d, text)
		if got := d.String(); got != want+"\n" {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

func TestNoFlagThatNothingHonours(t *testing.T) {
	gone := []string{
		"kubeconfig", "cluster", "user", "as", "as-uid", "as-group", "username", "password", "cache-dir", "kustomize", "cascade", "kuberc",
		"insecure-skip-tls-verify-backend", "match-server-version", "record", "save-config", "validate",
	}
	for _, cmd := range commands() {
		for _, name := range gone {
			if cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil {
				t.Errorf("%s has --%s", cmd.CommandPath(), name)
			}
		}
	}
}

func TestCommandsThereAre(t *testing.T) {
	var paths []string
	for _, cmd := range commands() {
		if cmd.Runnable() && !cmd.HasSubCommands() {
			paths = append(paths, strings.TrimPrefix(cmd.CommandPath(), "pawl "))
		}
	}
	for _, want := range []string{
		"get", "describe", "logs", "exec", "events", "wait", "rollout status", "rollout history", "explain", "api-resources", "api-versions",
		"delete", "auth can-i", "auth whoami", "completion", "version", "validate", "image import", "history", "why", "context use",
	} {
		if !slices.Contains(paths, want) {
			t.Errorf("there is no %s in %q", want, paths)
		}
	}
	for _, never := range []string{"apply", "edit", "rollout undo", "rollout restart", "auth reconcile", "config view", "proxy"} {
		if slices.Contains(paths, never) {
			t.Errorf("%s writes desired state or reads a kubeconfig", never)
		}
	}
}

func TestTranslationsStayUnread(t *testing.T) {
	if !quickstart.Untranslated() {
		t.Error("kubectl's packages translated a text before they were kept from it")
	}
}

func TestServersRefusalsArePrintedAsKubectlDoes(t *testing.T) {
	s := newServer(t)
	d := newDesk(t, s.URL)
	s.refuse("GET /api/v1/namespaces/default/pods/x", http.StatusNotFound, "NotFound", `pods "x" not found`)
	d.wants("get pod x", "", "Error from server (NotFound): pods \"x\" not found\n", 1)
	s.refuse("GET /api/v1/namespaces/shop/pods", http.StatusForbidden, "Forbidden", `pods is forbidden: user "eve" may not list pods`)
	d.wants("get pods -n shop", "", "Error from server (Forbidden): pods is forbidden: user \"eve\" may not list pods\n", 1)
	s.on("GET /apis/apps/v1/namespaces/default/deployments/web", `{"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "web", "namespace": "default"}}`)
	s.refuse("DELETE /apis/apps/v1/namespaces/default/deployments/web", http.StatusMethodNotAllowed, "MethodNotAllowed", "change web.yaml in http://x/git/cluster.git, branch main")
	d.wants("delete deploy web", "", "Error from server (MethodNotAllowed): change web.yaml in http://x/git/cluster.git, branch main\n", 1)
}

func TestWarningsOfTheServer(t *testing.T) {
	s := newServer(t)
	d := newDesk(t, s.URL)
	s.answer("DELETE /api/v1/namespaces/default/pods/p", answer{
		body:   `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default", "uid": "u"}}`,
		header: map[string]string{"Warning": `299 - "p comes back: p.yaml has it"`},
	})
	d.wants("delete pod p --wait=false", "pod \"p\" deleted from default namespace\n", "Warning: p comes back: p.yaml has it\n", 0)
}

func TestExitCodeWithoutWords(t *testing.T) {
	s := newServer(t)
	d := newDesk(t, s.URL)
	s.on("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": {"allowed": false}}`)
	if out, errs, code := d.process("auth can-i delete pods"); out != "no\n" || errs != "" || code != 1 {
		t.Errorf("auth can-i prints %q, says %q, exit code %d", out, errs, code)
	}
	s.on("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "status": {"allowed": true}}`)
	d.wants("auth can-i delete pods", "yes\n", "", 0)
}

func TestCompletion(t *testing.T) {
	s := newServer(t)
	s.on("GET /api/v1/namespaces/default/pods", `{"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web-1"}}, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "talk"}}]}`)
	s.on("GET /api/v1/namespaces", `{"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": [{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}}]}`)
	s.on("GET "+revisionsPath, revisions)
	d := newDesk(t, s.URL)
	for line, want := range map[string]string{
		"get deploy":             "deployments.apps",
		"get pods w":             "web-1",
		"logs ta":                "talk",
		"exec we":                "web-1",
		"delete pods t":          "talk",
		"why pods/web":           "pods/web-1",
		"get pods --namespace s": "shop",
		"get pods --context p":   "pawl",
		"context use p":          "pawl",
		"history 3f":             "3fa81c2d9e\tServe",
		"rollout s":              "status\tShow the status of the rollout",
	} {
		out, errs, code := d.pawl(append([]string{"__complete"}, strings.Fields(line)...)...)
		if first, _, _ := strings.Cut(out, "\n"); first != want || code != 0 {
			t.Errorf("%s: completes to %q, want %q (%d %s)", line, first, want, code, errs)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, _, code := d.pawl("completion", shell)
		if code != 0 || !strings.Contains(out, "pawl") || foreign.MatchString(out) {
			t.Errorf("completion %s: exit code %d, %d bytes", shell, code, len(out))
		}
	}
	s.Close()
	if out, _, code := d.pawl("__complete", "get", "pods", ""); code != 0 || !strings.HasPrefix(out, ":") {
		t.Errorf("without a server, completion gives %q, exit code %d", out, code)
	}
}
