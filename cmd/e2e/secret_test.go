package e2e

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/reconciler/access"
)

// Secrets that are wrong, each in its own way; %s is the value.
var wrongSecrets = []string{
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  p: *%s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  p: !%s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  p: [%s]\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  p: \"%s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {p: -%s}\nimmutable: %[1]s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\npassword: %s\n",
	"apiVersion: v1\nkind: Secrets\nmetadata: {name: a}\nstringData: {p: %s}\n",
	"kind: Secret\nstringData: {p: %s, p: x%[1]s}\n",
}

var wrongCUE = []string{
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %q & "x"}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %s}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: x %q}`,
}

// TestSecretsStayHidden has Secrets refused at a push, broken by a constraint of
// the cluster, and used where the container cannot start: nothing that viewers
// read, no answer to a push and no line of the log has a value.
func TestSecretsStayHidden(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "--log-level", "debug")
	var values []string
	value := func() string {
		v := "S" + strings.ToLower(rand.Text()[:20])
		values = append(values, v)
		return v
	}
	said := c.push(map[string]string{"first.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: first}\n"})
	files := map[string]string{}
	for i, s := range wrongSecrets {
		files[fmt.Sprintf("%d.yaml", i)] = fmt.Sprintf(s, value())
	}
	for i, s := range wrongCUE {
		files[fmt.Sprintf("%d/a.cue", i)] = fmt.Sprintf(s, value())
	}
	said += c.pushRefused(files)
	if n := strings.Count(said, "remote: "); n < len(files) {
		t.Errorf("%d lines about %d files:\n%s", n, len(files), said)
	}
	said += c.pushRefused(map[string]string{
		"cluster.cue": `Secret: data: p: "eA=="`,
		"held.yaml":   "apiVersion: v1\nkind: Secret\nmetadata: {name: held}\nstringData: {p: " + value() + "}\n",
	})

	good := value()
	env := "    env:\n    - {name: P, valueFrom: {secretKeyRef: {name: good, key: p}}}\n"
	said += c.push(map[string]string{
		"good.yaml":  "apiVersion: v1\nkind: Secret\nmetadata: {name: good}\nstringData: {p: " + good + ", up: ../" + good + "}\n",
		"start.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: start}\nspec:\n  containers:\n  - name: main\n    image: busybox:1\n    command: [\"$(P)\"]\n" + env,
		"mount.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: mount}\nspec:\n  volumes: [{name: v, emptyDir: {}}]\n  containers:\n  - name: main\n" +
			"    image: busybox:1\n    volumeMounts: [{name: v, mountPath: /x, subPathExpr: $(P)}]\n" + strings.ReplaceAll(env, "key: p", "key: up"),
	})
	c.eventually(60*time.Second, "both pods fail", func() error {
		events := c.asViewer("/api/v1/events")
		if !strings.Contains(events, "***") || !strings.Contains(events, "subPathExpr") {
			return fmt.Errorf("no such events: %s", events)
		}
		return nil
	})
	for _, path := range []string{
		"/api/v1/events", "/api/v1/pods", "/api/v1/nodes", "/api/v1/namespaces", "/api/v1/configmaps", "/apis/apps/v1/replicasets",
		"/apis/pawl.dev/v1/revisions", "/api/v1/namespaces/default/secrets", "/metrics",
	} {
		said += c.asViewer(path)
	}
	for _, line := range []string{"history", "history -o yaml", "why pod/start", "why pod/mount", "describe pods", "events", "blame secret/good", "blame pod/start"} {
		out, err := c.pawl(strings.Fields(line)...)
		if err != nil {
			t.Errorf("pawl %s: %v\n%s", line, err, out)
		}
		said += out
	}
	log, err := os.ReadFile(c.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	said += string(log)
	if len(said) < 10_000 {
		t.Errorf("only %d bytes were read: the test shows nothing", len(said))
	}
	for _, v := range values {
		for _, form := range []string{v, base64.StdEncoding.EncodeToString([]byte(v))} {
			if at := strings.Index(said, form); at >= 0 {
				t.Errorf("%s is told: …%s…", form, said[max(0, at-200):min(len(said), at+100)])
			}
		}
	}
}

// asViewer is the answer to a viewer, whatever it is.
func (c *cluster) asViewer(path string) string {
	c.t.Helper()
	token, err := os.ReadFile(access.TokenFile(c.data, access.View))
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, c.url()+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := c.plainClient().Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}
