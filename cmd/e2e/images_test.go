package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	robotPassword = "Correct-Horse_Battery!Staple"
	robotBasic    = "cm9ib3Q6Q29ycmVjdC1Ib3JzZV9CYXR0ZXJ5IVN0YXBsZQ=="
)

// A guardedRegistry has the images of the tests' registry, for who knows the
// password, in the way that a test says.
type guardedRegistry struct {
	*httptest.Server
	blob atomic.Pointer[func(w io.Writer, body []byte)] // how a large blob is sent; nil: as it is
}

func newGuardedRegistry(t *testing.T) *guardedRegistry {
	t.Helper()
	behind, err := url.Parse(mirror)
	if err != nil {
		t.Fatal(err)
	}
	if got := base64.StdEncoding.EncodeToString([]byte("robot:" + robotPassword)); got != robotBasic {
		t.Fatalf("the password is %s", got)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	g := &guardedRegistry{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Basic "+robotBasic {
			w.Header().Set("WWW-Authenticate", `Basic realm="guarded"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		send := g.blob.Load()
		if send == nil || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			proxy.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		r.Header.Del("Range")
		proxy.ServeHTTP(rec, r)
		w.Header().Set("Content-Length", fmt.Sprint(rec.Body.Len()))
		(*send)(w, rec.Body.Bytes())
	}))
	t.Cleanup(g.Close)
	return g
}

func (g *guardedRegistry) sends(f func(w io.Writer, body []byte)) { g.blob.Store(&f) }

func (g *guardedRegistry) host() string { return strings.TrimPrefix(g.URL, "http://") }

func (g *guardedRegistry) pod(name, image string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 1\n  imagePullSecrets: [{name: robot}]\n  containers:\n  - {name: main, image: '%s/library/%s'%s}\n",
		name, g.host(), image, map[bool]string{true: ", command: [sleep, '1000']"}[strings.HasPrefix(image, "busybox")])
}

func (g *guardedRegistry) login() string {
	return fmt.Sprintf(`{"auths":{"http://%s/library":{"auth":"%s"}}}`, g.host(), robotBasic)
}

// waitsWith waits until the pod's container waits with a message that says so.
func (c *cluster) waitsWith(name, reason, says string) {
	c.t.Helper()
	c.eventually(30*time.Second, name+" waits: "+reason+": "+says, func() error {
		p := c.pods(name)[name]
		if len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].State.Waiting == nil {
			return fmt.Errorf("%s", describe(p))
		}
		w := p.Status.ContainerStatuses[0].State.Waiting
		if w.Reason != reason || !strings.Contains(w.Message, says) {
			return fmt.Errorf("%s: %s", w.Reason, w.Message)
		}
		return nil
	})
}

func (c *cluster) runsInTheEnd(name string) {
	c.t.Helper()
	c.eventually(60*time.Second, name+" runs", func() error {
		if p := c.pods(name)[name]; p.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("%s", describe(p))
		}
		return nil
	})
}

// says runs pawl and wants each of the words in what it prints.
func (c *cluster) says(words []string, args ...string) string {
	c.t.Helper()
	out, err := c.pawl(args...)
	if err != nil {
		c.t.Fatalf("pawl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			c.t.Errorf("pawl %s does not say %q:\n%s", strings.Join(args, " "), w, out)
		}
	}
	return out
}

// TestImages pulls from a registry that wants a password and is broken, slow and
// good in turn; pods say what they wait for and start by themselves. Then a
// person works with the node's images.
func TestImages(t *testing.T) {
	t.Parallel()
	c, reg := newCluster(t), newGuardedRegistry(t)

	// Without its secret a pod cannot be pulled for; it starts when the secret comes.
	c.push(map[string]string{"a.yaml": reg.pod("guarded", "busybox:1")})
	c.waitsWith("guarded", "ImagePullBackOff", "pull access denied")
	c.eventually(30*time.Second, "describe tells of the secret", func() error {
		out, err := c.pawl("describe", "pod", "guarded")
		if err != nil || !strings.Contains(out, "FailedToRetrieveImagePullSecret") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: robot}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '" + reg.login() + "'\n"
	c.push(map[string]string{"secret.yaml": secret})
	c.runsInTheEnd("guarded")

	// A registry that sends rubbish is named; the pod starts when it is mended.
	reg.sends(func(w io.Writer, body []byte) {
		body = append([]byte(nil), body...)
		body[len(body)/2] ^= 1
		_, _ = w.Write(body)
	})
	c.push(map[string]string{"b.yaml": reg.pod("rubbish", "nginx:1.16.1")})
	c.waitsWith("rubbish", "ImagePullBackOff", "not what the digest promises")

	// A slow one is waited for, and describe says how far it is.
	reg.sends(func(w io.Writer, body []byte) {
		for len(body) > 0 {
			n := min(len(body), 128<<10)
			_, _ = w.Write(body[:n])
			w.(http.Flusher).Flush()
			body = body[n:]
			time.Sleep(250 * time.Millisecond)
		}
	})
	c.push(map[string]string{"c.yaml": reg.pod("slow", "nginx:1.7.9")})
	c.eventually(30*time.Second, "describe says how far the pull is", func() error {
		out, err := c.pawl("describe", "pod", "slow")
		if err != nil || !strings.Contains(out, "main: pulling: ") || !strings.Contains(out, " of 5 MiB") {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	c.runsInTheEnd("slow")
	c.runsInTheEnd("rubbish")
	c.works(reg)
	c.keepsItsMouthShut()
}

// works tries what a person does with images.
func (c *cluster) works(reg *guardedRegistry) {
	t := c.t
	t.Helper()
	busybox := reg.host() + "/library/busybox:1"
	c.says([]string{"IMAGE", "ID", "SIZE", "CREATED", "IN USE", busybox, "MiB"}, "image", "ls")
	var list []struct {
		Name, ID string
		UsedBy   []string
		Whole    bool
	}
	if err := json.Unmarshal([]byte(c.says(nil, "image", "ls", "-o", "json")), &list); err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, img := range list {
		if len(img.UsedBy) != 1 || !strings.HasPrefix(img.UsedBy[0], "default/") || !img.Whole {
			t.Errorf("%+v", img)
		}
	}
	c.says([]string{`"entrypoint"`, `"usedBy"`, "linux/amd64"}, "image", "inspect", reg.host()+"/library/nginx:1.7.9")
	for _, args := range [][]string{{"image", "rm", busybox}, {"image", "pull", "--registry-mirror", "docker.io=" + reg.URL, "redis:5.0.4"}, {"image", "inspect", "no-such"}} {
		if out, err := c.pawl(args...); err == nil {
			t.Errorf("pawl %s: want an error\n%s", strings.Join(args, " "), out)
		} else {
			t.Logf("pawl %s: %s", strings.Join(args, " "), out)
		}
	}
	logins := filepath.Join(c.dir, "logins.json")
	if err := os.WriteFile(logins, []byte(reg.login()), 0o600); err != nil {
		t.Fatal(err)
	}
	redis := reg.host() + "/library/redis:5.0.4"
	c.says([]string{"pulled " + redis + ": ", "@sha256:", "MiB"}, "image", "pull", redis, "--credentials", logins)
	c.says([]string{redis + " is here already"}, "image", "pull", redis, "--credentials", logins)
	c.says([]string{"removed " + redis}, "image", "rm", redis)
	c.says([]string{"removed " + busybox}, "image", "rm", "--force", busybox)
	if out := c.says(nil, "image", "ls"); strings.Contains(out, redis) || strings.Contains(out, busybox) {
		t.Errorf("they are still here:\n%s", out)
	}
}

// keepsItsMouthShut looks for the password where it must not be.
func (c *cluster) keepsItsMouthShut() {
	for _, dir := range []string{filepath.Join(c.data, "containerd"), c.run, c.log.Name()} {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/snapshots/") {
				return nil
			}
			raw, err := os.ReadFile(path)
			if err == nil && (strings.Contains(string(raw), robotPassword) || strings.Contains(string(raw), robotBasic)) {
				c.t.Errorf("%s tells the password", path)
			}
			return nil
		})
		if err != nil {
			c.t.Error(err)
		}
	}
}
