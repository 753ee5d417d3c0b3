package api

import (
	"bufio"
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// A kubectl is the real one, with a kubeconfig for a door.
type kubectl struct {
	t      *testing.T
	config string
	dir    string
}

// kubectl opens the door with TLS: over plain HTTP kubectl sends no token.
func (d *door) kubectl(t *testing.T, token string) kubectl {
	s := httptest.NewTLSServer(guard(d.server))
	t.Cleanup(func() { d.server.Close(); s.Close() })
	k := kubectl{t: t, dir: t.TempDir()}
	k.config = k.file("kubeconfig", `{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: "`+s.URL+`", insecure-skip-tls-verify: true}}],
users: [{name: c, user: {token: `+token+`}}], contexts: [{name: c, context: {cluster: c, user: c}}]}`)
	return k
}

func (k kubectl) file(name, text string) string {
	path := filepath.Join(k.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

// run runs kubectl and returns what it printed, output before errors, and
// whether it succeeded.
func (k kubectl) run(args ...string) (string, bool) {
	ctx, cancel := context.WithTimeout(k.t.Context(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "kubectl", args...)
	c.Env = []string{"HOME=" + k.dir, "KUBECONFIG=" + k.config, "PATH=" + os.Getenv("PATH")}
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	return out.String() + errs.String(), err == nil
}

const webManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: default}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: "registry.example.org/web:8"}]}
`

func TestKubectl(t *testing.T) {
	d := newDoor(t).furnish()
	k := d.kubectl(t, "admin")
	web := k.file("web.yaml", strings.ReplaceAll(webManifest, "NAME", "web"))
	fresh := k.file("new.yaml", strings.ReplaceAll(webManifest, "NAME", "new"))
	bad := k.file("bad.yaml", strings.ReplaceAll(webManifest, "replicas: 3", "replicas: -1"))
	const git = "http://127.0.0.1:7420/git/cluster.git (branch main) and push"
	for _, q := range []struct {
		args string
		ok   bool
		want string // a regular expression, from the beginning to the end
	}{
		{"get pods", true, `NAME +READY +STATUS +RESTARTS +AGE\ntalk +1/1 +Running +0 +6\dm\nweb-7-a .*\nweb-7-b .*\n`},
		{"get pods -A -o wide --no-headers --field-selector metadata.namespace=kube-system", true, `kube-system +dns +1/1 +Running +0 +6\dm +10.42.0.7 +n1 +<none> +<none>\n`},
		{"get pods -l app=web -o name --chunk-size=1", true, `pod/web-7-a\npod/web-7-b\n`},
		{"get pods --show-labels --sort-by=.metadata.name", true, `NAME .* LABELS\ntalk .* app=talk\n(.*\n){2}`},
		{"get pod talk -o jsonpath={.status.phase}", true, `Running`},
		{"get pods -A -o custom-columns=N:.metadata.name,P:.spec.nodeName", true, `N +P\ntalk +n1\n(.*\n){3}`},
		{"get all -o name", true, `pod/talk\npod/web-7-a\npod/web-7-b\nservice/web\ndeployment.apps/web\nreplicaset.apps/web-7\n`},
		{"get pod talk -o yaml", true, `apiVersion: v1\nkind: Pod\nmetadata:\n(.*\n)+`},
		{"get pod nosuch", false, `Error from server \(NotFound\): pods "nosuch" not found\n`},
		{"get nosuch", false, `error: the server doesn't have a resource type "nosuch"\n`},
		{"get pods --field-selector a=b", false, `Error from server \(BadRequest\): Unable to find "/v1, Resource=pods" that match label selector "", field selector "a=b": field label not supported: a\n`},
		{"get --raw /livez", true, `ok`},
		{"get --raw /nosuch", false, `Error from server \(NotFound\): the server could not find the requested resource\n`},
		{"describe pod talk", true, `Name: +talk\n(.*\n)+Events:\n(.*\n)+  Normal  Started .*\n`},
		{"describe deploy web", true, `Name: +web\n(.*\n)+NewReplicaSet: +web-7 \(2/2 replicas created\)\nEvents: +<none>\n`},
		{"describe node n1", true, `Name: +n1\n(.*\n)+Non-terminated Pods: +\(4 in total\)\n(.*\n)+`},
		{"explain deployment.spec.replicas", true, `GROUP: +apps\nKIND: +Deployment\nVERSION: +v1\n\nFIELD: replicas <integer>\n(.*\n)+`},
		{"explain pods.spec.containers.image", true, `KIND: +Pod\nVERSION: +v1\n\nFIELD: image <string>\n(.*\n)+`},
		{"explain revisions.status.faults.line", true, `GROUP: +pawl.dev\nKIND: +Revision\n(.*\n)+FIELD: line <integer>\n(.*\n)+`},
		{"api-resources --api-group=apps --no-headers", true, `deployments +deploy +apps/v1 +true +Deployment\nreplicasets +rs +apps/v1 +true +ReplicaSet\n`},
		{"api-versions", true, `apps/v1\nauthentication.k8s.io/v1\nauthorization.k8s.io/v1\npawl.dev/v1\nscheduling.k8s.io/v1\nv1\n`},
		{"version -o json", true, `(.*\n)+.*"gitVersion": "v1.36.3\+pawl-0.3.0"(.*\n)+`},
		{"wait --for=condition=Ready pod/talk --timeout=10s", true, `pod/talk condition met\n`},
		{"wait --for=condition=Ready pod/nosuch --timeout=1s", false, `Error from server \(NotFound\): pods "nosuch" not found\n`},
		{"rollout status deploy/web", true, `deployment "web" successfully rolled out\n`},
		{"rollout history deploy/web", true, `deployment.apps/web \nREVISION +CHANGE-CAUSE\n1 +<none>\n\n`},
		{"events --for pod/talk --no-headers", true, `(.*\n){2}\S+ +Normal +Started +Pod/talk +Started it\n`},
		{"auth can-i delete pods", true, `yes\n`},
		{"auth whoami", true, `ATTRIBUTE +VALUE\nUsername +ada\nGroups +\[pawl:admin system:authenticated\]\n`},
		{"delete deploy web", false, `Error from server \(MethodNotAllowed\): deployments.apps "web" is changed in Git only: edit apps/web.yaml:1 in ` + regexp.QuoteMeta(git) + `\n`},
		{"create -f " + fresh, false, `.*deployments.apps "new" is added in Git only: add a file with it to ` + regexp.QuoteMeta(git) + `\n`},
		{"label pod talk a=b", false, `Error from server \(MethodNotAllowed\): pods "talk" is changed in Git only: edit apps/talk.yaml:1 .*\n`},
		{"scale deploy web --replicas=9", false, `Error from server \(MethodNotAllowed\): deployments.apps "web" is changed in Git only: .*\n`},
		{"apply --dry-run=server -f " + web, true, `deployment.apps/web configured \(server dry run\)\nWarning: .*\nWarning: spec.paused: not acted on\n`},
		{"apply --dry-run=server -f " + fresh, true, `deployment.apps/new created \(server dry run\)\nWarning: .*\n`},
		{"apply --server-side --dry-run=server -f " + fresh, true, `deployment.apps/new serverside-applied \(server dry run\)\nWarning: .*\n`},
		{"create --dry-run=server -o jsonpath={.spec.replicas} -f " + fresh, true, `3Warning: .*\n`},
		{"create --dry-run=server -f " + web, false, `.*deployments.apps "web" already exists\n`},
		{"create --dry-run=server -f " + bad, false, `The Deployment "NAME" is invalid: spec.replicas: -1 is less than 0; 0 or more\n`},
		{"patch deploy web --dry-run=server --type=merge -o jsonpath={.spec.replicas} -p {\"spec\":{\"replicas\":7}}", true, `7Warning: .*\n`},
		{"delete pod talk --dry-run=server", true, `pod "talk" deleted \(server dry run\)\nWarning: .*\n`},
		{"delete pod talk", true, `pod "talk" deleted\nWarning: pod talk stands in Git \(apps/talk.yaml:1\): it is made again; remove it there to end it\n`},
		{"delete pods -l app=web", true, `pod "web-7-a" deleted\npod "web-7-b" deleted\n`},
		{"get pods", true, `No resources found in default namespace.\n`},
	} {
		out, ok := k.run(strings.Fields(q.args)...)
		if ok != q.ok || !regexp.MustCompile(`^(?:`+q.want+`)$`).MatchString(out) {
			t.Errorf("kubectl %s: ok=%v\n%s", q.args, ok, out)
		}
	}
}

func TestKubectlAsViewer(t *testing.T) {
	d := newDoor(t).furnish()
	k := d.kubectl(t, "view")
	for _, q := range []struct {
		args string
		ok   bool
		want string
	}{
		{"auth can-i delete pods", false, "no\n"},
		{"auth can-i get pods", true, "yes\n"},
		{"auth can-i get secrets", false, "no\n"},
		{"auth can-i --list --no-headers", true, `(.*\n)*pods +\[\] +\[\] +\[get list watch\]\n(.*\n)*`},
		{"get secrets", false, `Error from server \(Forbidden\): secrets is forbidden: User "vic" cannot list resource "secrets" in API group "" in the namespace "default"\n`},
		{"delete pod talk", false, `Error from server \(Forbidden\): pods "talk" is forbidden: User "vic" cannot delete resource "pods" in API group "" in the namespace "default"\n`},
	} {
		out, ok := k.run(strings.Fields(q.args)...)
		if ok != q.ok || !regexp.MustCompile(`^(?:`+q.want+`)$`).MatchString(out) {
			t.Errorf("kubectl %s: ok=%v\n%s", q.args, ok, out)
		}
	}
}

// TestKubectlWatches lets `kubectl get -w` see a deletion.
func TestKubectlWatches(t *testing.T) {
	d := newDoor(t).furnish()
	k := d.kubectl(t, "admin")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := exec.CommandContext(ctx, "kubectl", "get", "pods", "-w", "--no-headers", "-l", "app=talk")
	c.Env = []string{"HOME=" + k.dir, "KUBECONFIG=" + k.config, "PATH=" + os.Getenv("PATH")}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "talk ") {
		t.Error(lines.Text())
	}
	eventually(t, "kubectl watches", func() bool { return d.cache.Stats().Watchers == 1 })
	d.cache.Delete(schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "talk"}, 0)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "talk ") {
		t.Error(lines.Text())
	}
	cancel()
	_ = c.Wait() // it was killed
}
