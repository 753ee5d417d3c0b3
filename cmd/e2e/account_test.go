package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// newOpenCluster is newCluster with a door that pods can reach.
func newOpenCluster(t testing.TB) *cluster {
	t.Helper()
	c := prepareCluster(t)
	c.open = true
	c.start()
	c.git("", "clone", "-q", "-c", "include.path="+c.gitConfig(), c.repository(), c.work)
	return c
}

// listen is the daemon's --http, and url how this test reaches it.
func (c *cluster) listen() string {
	if !c.open {
		return c.http
	}
	_, port, _ := net.SplitHostPort(c.http)
	return net.JoinHostPort("0.0.0.0", port)
}

func (c *cluster) url() string {
	if c.open {
		return "https://" + c.http
	}
	return "http://" + c.http
}

// plainClient trusts whatever answers: it is to find out whether something does.
func (c *cluster) plainClient() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

// bearer asks for a path with a token, "" being none.
func (c *cluster) bearer(path, token string) (int, string) {
	c.t.Helper()
	q, err := http.NewRequest(http.MethodGet, c.url()+path, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := c.plainClient().Do(q)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// kubectlPod is a pod with kubectl, which asks the API in its own name.
func kubectlPod(t *testing.T, name, more string) string {
	program, err := exec.LookPath("kubectl")
	if err != nil {
		t.Fatal(err)
	}
	return barePod(name, "exec sleep 1000000", more+"\n  volumes:\n  - {name: kubectl, hostPath: {path: "+program+", type: File}}") +
		"    volumeMounts: [{name: kubectl, mountPath: /bin/kubectl}]\n    env: [{name: HOME, value: /tmp}]\n"
}

func serviceAccount(name, role string) string {
	text := "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: " + name + "\n"
	if role != "" {
		text += "  annotations: {pawl.dev/role: " + role + "}\n"
	}
	return text
}

const tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// tries runs a command in a pod that may fail, and returns what it says.
func (c *cluster) tries(pod, command string) string {
	out, _ := c.pawl("exec", pod, "-c", "main", "--", "sh", "-c", command+" 2>&1")
	return strings.TrimSpace(out)
}

// TestPodsAskTheAPI has real pods ask with real kubectl, over the death of the
// daemon, until they are gone.
func TestPodsAskTheAPI(t *testing.T) {
	t.Parallel()
	c := newOpenCluster(t)
	c.push(map[string]string{
		"robot.yaml":  serviceAccount("robot", ""),
		"viewer.yaml": serviceAccount("viewer", "view"),
		"a.yaml":      kubectlPod(t, "ask", "  serviceAccountName: robot"),
		"b.yaml":      kubectlPod(t, "look", "  serviceAccountName: viewer\n  hostNetwork: true"),
		"c.yaml":      barePod("plain", "exec sleep 1000000", ""),
		"d.yaml": barePod("vault", "exec sleep 1000000", "  serviceAccountName: robot\n  automountServiceAccountToken: false\n  securityContext: {runAsUser: 1000}\n"+
			"  volumes:\n  - name: id\n    projected:\n      sources:\n      - serviceAccountToken: {path: vault, audience: vault, expirationSeconds: 600}") +
			"    volumeMounts: [{name: id, mountPath: /id}]\n",
		"e.yaml": barePod("early", "exec sleep 1000000", "  serviceAccountName: late"),
	})
	for _, name := range []string{"ask", "look", "plain", "vault"} {
		c.running(name, 1, 60*time.Second)
	}

	// In its own name, with no rights but to ask about itself.
	if out := c.tries("ask", "kubectl auth whoami"); !strings.Contains(out, "system:serviceaccount:default:robot") || !strings.Contains(out, "system:serviceaccounts:default") {
		t.Errorf("whoami: %s", out)
	}
	if out := c.tries("ask", "kubectl get pods"); !strings.Contains(out, `User "system:serviceaccount:default:robot" cannot list resource "pods" in API group "" in the namespace "default"`) {
		t.Errorf("without a role: %s", out)
	}
	if out := c.inPod("ask", "main", "cat "+strings.TrimSuffix(tokenFile, "token")+"namespace; echo; stat -c '%a %u' -L "+tokenFile+"; mount | grep kubernetes.io"); !strings.HasPrefix(out, "default\n644 0\n") || !strings.Contains(out, "type tmpfs (ro") {
		t.Errorf("what is mounted: %s", out)
	}
	if out := c.tries("look", "kubectl get pods -o name"); !strings.Contains(out, "pod/ask") { // on the node's network
		t.Errorf("with the role view: %s", out)
	}
	if out := c.tries("look", "kubectl get secrets"); !strings.Contains(out, "cannot list resource") {
		t.Errorf("secrets with the role view: %s", out)
	}
	if out := c.inPod("plain", "main", "ls /var/run/secrets 2>/dev/null; env | grep -c ^KUBERNETES_SERVICE_"); out != "3" {
		t.Errorf("a pod that asked for nothing: %s", out)
	}
	if out := c.inPod("vault", "main", "stat -c '%a %u' -L /id/vault; ls -A /var/run/secrets 2>/dev/null | wc -l"); out != "600 1000\n0" {
		t.Errorf("a token for others: %s", out)
	}

	// The token itself, and what everybody needs to read it.
	token, vault := c.inPod("ask", "main", "cat "+tokenFile), c.inPod("vault", "main", "cat /id/vault")
	if code, body := c.bearer("/version", token); code != 200 {
		t.Errorf("from elsewhere: %d %s", code, body)
	}
	for name, wrong := range map[string]string{"for another audience": vault, "cut": token[:len(token)-20], "unsigned": token[:strings.LastIndex(token, ".")+1]} {
		if code, body := c.bearer("/version", wrong); code != 401 {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	c.reviewed(vault, "vault")
	for _, path := range []string{"/openid/v1/jwks", "/.well-known/openid-configuration"} {
		if code, body := c.bearer(path, ""); code != 200 || !strings.Contains(body, "ES256") {
			t.Errorf("%s without a credential: %d %s", path, code, body)
		}
	}

	// The account that was late, and the role that comes later.
	c.eventually(30*time.Second, "the pod says what it waits for", func() error {
		for _, s := range c.pods("early")["early"].Status.ContainerStatuses {
			if s.State.Waiting != nil && strings.Contains(s.State.Waiting.Message, `serviceaccounts "late" not found`) {
				return nil
			}
		}
		return fmt.Errorf("%s", describe(c.pods("early")["early"]))
	})
	c.push(map[string]string{"late.yaml": serviceAccount("late", ""), "robot.yaml": serviceAccount("robot", "view")})
	c.eventually(30*time.Second, "the role is given", func() error {
		if out := c.tries("ask", "kubectl get pods -o name"); !strings.Contains(out, "pod/ask") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	// The daemon dies: the pod keeps its token, which is good again at once.
	before := c.pods("ask")["ask"]
	c.kill()
	c.start()
	c.eventually(30*time.Second, "the token is good after the daemon's death", func() error {
		if out := c.tries("ask", "kubectl auth whoami"); !strings.Contains(out, "serviceaccount:default:robot") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	if after := c.pods("ask")["ask"]; after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod was restarted: %s", describe(after))
	}
	if again := c.inPod("ask", "main", "cat "+tokenFile); again != token {
		t.Error("the token was replaced without need")
	}

	c.running("early", 1, 60*time.Second)

	c.push(map[string]string{"a.yaml": ""})
	c.eventually(30*time.Second, "the token dies with its pod", func() error {
		if code, body := c.bearer("/version", token); code != 401 {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

// reviewed has the API say whose token it is.
func (c *cluster) reviewed(token, audience string) {
	c.t.Helper()
	text, err := json.Marshal(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": map[string]any{"token": token, "audiences": []string{audience}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	q := exec.Command("kubectl", "--kubeconfig", c.kubeconfig(), "create", "--raw", "/apis/authentication.k8s.io/v1/tokenreviews", "-f", "-")
	q.Env, q.Stdin = c.env(), strings.NewReader(string(text))
	out, err := q.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"authenticated":true`) || !strings.Contains(string(out), `"audiences":["`+audience+`"]`) ||
		!strings.Contains(string(out), `"username":"system:serviceaccount:default:robot"`) || strings.Contains(string(out), token) {
		c.t.Errorf("TokenReview: %v\n%s", err, out)
	}
}
