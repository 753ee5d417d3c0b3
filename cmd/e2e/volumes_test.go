package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// everyVolume is a pod with a volume of every kind that needs no server. HOST is
// a directory of the test's, SHARED a shared mount of it.
const everyVolume = `apiVersion: v1
kind: Pod
metadata:
  name: every
  labels: {app: every, tier: front}
  annotations: {note: "two\nlines"}
spec:
  terminationGracePeriodSeconds: 0
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "exec sleep 1000000"]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: host, mountPath: /host}
    - {name: host, mountPath: /readonly, readOnly: true}
    - {name: host, mountPath: /part, subPath: a/b}
    - {name: host, mountPath: /own, subPathExpr: "pods/$(POD)"}
    - {name: made, mountPath: /made}
    - {name: file, mountPath: /file}
    - {name: socket, mountPath: /null}
    - {name: config, mountPath: /config}
    - {name: config, mountPath: /etc/one.txt, subPath: one}
    - {name: items, mountPath: /items}
    - {name: secret, mountPath: /secret}
    - {name: fields, mountPath: /fields}
    - {name: all, mountPath: /all}
    - {name: absent, mountPath: /absent}
    - {name: shared, mountPath: /shared, mountPropagation: HostToContainer}
  - name: root
    image: busybox:1
    command: [sh, -c, "exec sleep 1000000"]
    securityContext: {privileged: true, runAsUser: 0}
    volumeMounts:
    - {name: shared, mountPath: /shared, mountPropagation: Bidirectional}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: host, hostPath: {path: HOST/dir, type: Directory}}
  - {name: made, hostPath: {path: HOST/made/here, type: DirectoryOrCreate}}
  - {name: file, hostPath: {path: HOST/file, type: FileOrCreate}}
  - {name: socket, hostPath: {path: /dev/null, type: CharDevice}}
  - {name: shared, hostPath: {path: SHARED}}
  - {name: config, configMap: {name: settings, defaultMode: 0440}}
  - name: items
    configMap:
      name: settings
      items: [{key: one, path: deep/er/first, mode: 0600}]
  - {name: secret, secret: {secretName: key, defaultMode: 0400}}
  - name: fields
    downwardAPI:
      items:
      - {path: labels, fieldRef: {fieldPath: metadata.labels}}
      - {path: notes, fieldRef: {fieldPath: metadata.annotations}}
      - {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory, divisor: 1Mi}}
      - {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}
  - name: all
    projected:
      defaultMode: 0444
      sources:
      - configMap: {name: settings, items: [{key: two, path: config/two}]}
      - secret: {name: key}
      - downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}
      - configMap: {name: nobody, optional: true}
  - {name: absent, secret: {secretName: nobody, optional: true}}
`

const settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {one: %s, two: second}\n"

// TestEveryVolume has a container look at a volume of every kind.
func TestEveryVolume(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	host, shared := filepath.Join(c.dir, "host"), filepath.Join(c.dir, "shared")
	for _, dir := range []string{filepath.Join(host, "dir", "a", "b"), shared} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	shareMount(t, shared)
	if err := os.WriteFile(filepath.Join(host, "dir", "a", "b", "inner"), []byte("inner"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.push(map[string]string{
		"settings.yaml": fmt.Sprintf(settings, "first"),
		"key.yaml":      "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: hush}\n",
		"pod.yaml":      strings.NewReplacer("HOST", host, "SHARED", shared).Replace(everyVolume),
	})
	c.running("every", 1, 60*time.Second)
	for _, e := range []struct{ command, want string }{
		{"id -G", "1000 2000"},
		{"echo x >/disk/f && stat -c '%a %g %u' /disk /disk/f", "2777 2000 0\n644 2000 1000"},
		{"stat -f -c %T /memory; dd if=/dev/zero of=/memory/f bs=64k count=100 2>&1 | grep -o 'No space left on device'; stat -c %s /memory/f; rm /memory/f", "tmpfs\nNo space left on device\n1048576"},
		{"cat /host/a/b/inner /part/inner; touch /readonly/x 2>&1 | grep -o 'Read-only file system'", "innerinnerRead-only file system"},
		{"stat -c '%F' /own /made /file /null", "directory\ndirectory\nregular empty file\ncharacter special file"},
		{"ls -A /config | grep -v '^\\.\\.[0-9]'; cat /config/one /etc/one.txt; stat -L -c '%a %g' /config/one", "..data\none\ntwo\nfirstfirst440 2000"},
		{"cat /items/deep/er/first; ls /items; stat -L -c '%a' /items/deep/er/first", "firstdeep\n640"},
		{"cat /secret/password; stat -L -c '%a %g' /secret/password; stat -f -c %T /secret", "hush440 2000\ntmpfs"},
		{"touch /config/x /secret/x 2>&1 | grep -c 'Read-only file system'", "2"},
		{"cat /fields/labels; echo; cat /fields/memory /fields/cpu", "app=\"every\"\ntier=\"front\"\n64500"},
		{`grep -c '^note="two\\nlines"' /fields/notes`, "1"},
		{"cat /all/config/two /all/password /all/name; ls /all", "secondhushevery" + "config\nname\npassword"},
		{"ls -A /absent | grep -v '^\\.\\.'; echo none", "none"},
	} {
		out, err := c.pawl("exec", "every", "-c", "main", "--", "sh", "-c", e.command)
		if got := strings.TrimSpace(out); got != e.want {
			t.Errorf("%s: %v:\n%s\nwant\n%s", e.command, err, got, e.want)
		}
	}
	c.propagates(shared)
	// What the node gave stays; what was the pod's goes.
	c.push(map[string]string{"pod.yaml": ""})
	c.eventually(30*time.Second, "the pod is gone", func() error {
		if n := len(c.pods("every")); n > 0 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	if text, err := os.ReadFile(filepath.Join(host, "dir", "a", "b", "inner")); string(text) != "inner" {
		t.Errorf("the node's file: %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(host, "dir", "pods", "every")); err != nil {
		t.Error(err)
	}
}

// propagates mounts on either side and looks on the other.
func (c *cluster) propagates(shared string) {
	c.t.Helper()
	in := filepath.Join(shared, "from-node")
	if err := os.Mkdir(in, 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", in, "tmpfs", 0, "size=64k,mode=0777"); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(in, "seen"), []byte("seen"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	if out, err := c.pawl("exec", "every", "-c", "main", "--", "cat", "/shared/from-node/seen"); out != "seen" {
		c.t.Errorf("a mount of the node in the container: %q, %v", out, err)
	}
	if out, err := c.pawl("exec", "every", "-c", "root", "--", "sh", "-c", "mkdir /shared/from-pod && mount -t tmpfs -o size=64k none /shared/from-pod && echo made >/shared/from-pod/made"); err != nil {
		c.t.Fatalf("mount in the container: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(filepath.Join(shared, "from-pod", "made")); string(text) != "made\n" {
		c.t.Errorf("a mount of the container on the node: %q, %v", text, err)
	}
	if out, err := c.pawl("exec", "every", "-c", "main", "--", "cat", "/shared/from-pod/made"); out != "made\n" {
		c.t.Errorf("a mount of one container in the other: %q, %v", out, err)
	}
}

// shareMount mounts a tmpfs that is a shared mount, and takes it away in the end.
func shareMount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
}

// TestUpdatesReachPods pushes changes of objects that a running pod has as files
// and measures when its files change.
func TestUpdatesReachPods(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	key := "apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {password: %s}\n"
	c.push(map[string]string{
		"settings.yaml": fmt.Sprintf(settings, "v0"),
		"key.yaml":      fmt.Sprintf(key, "v0"),
		"pod.yaml": `apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, "exec sleep 1000000"]
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: config, mountPath: /fixed, subPath: one}
    - {name: items, mountPath: /items}
    - {name: secret, mountPath: /secret}
    - {name: all, mountPath: /all}
  volumes:
  - {name: config, configMap: {name: settings}}
  - {name: items, configMap: {name: settings, items: [{key: one, path: deep/one}]}}
  - {name: secret, secret: {secretName: key}}
  - name: all
    projected:
      sources:
      - configMap: {name: settings}
      - secret: {name: key}
      - configMap: {name: later, optional: true}
`,
	})
	before := c.running("reader", 1, 60*time.Second)["reader"]
	id := strings.TrimPrefix(before.Status.ContainerStatuses[0].ContainerID, "containerd://")
	root := fmt.Sprintf("/proc/%d/root", c.taskPIDs()[id])
	is := func(path, want string) error {
		text, err := os.ReadFile(root + path)
		if want == "" && os.IsNotExist(err) {
			return nil
		}
		if string(text) != want || want == "" {
			return fmt.Errorf("%s is %q, want %q (error %w)", path, text, want, err)
		}
		return nil
	}
	var took []time.Duration
	change := func(files map[string]string, want map[string]string) {
		t.Helper()
		c.write(files)
		c.commit("change")
		c.git(c.work, "push", "origin", "HEAD:main")
		pushed := time.Now()
		for path, text := range want {
			c.eventually(20*time.Second, path, func() error { return is(path, text) })
		}
		took = append(took, time.Since(pushed))
	}
	for i := range 10 {
		v := fmt.Sprintf("v%d", i+1)
		change(map[string]string{"settings.yaml": fmt.Sprintf(settings, v), "key.yaml": fmt.Sprintf(key, v)},
			map[string]string{"/config/one": v, "/items/deep/one": v, "/secret/password": v, "/all/one": v, "/all/password": v})
	}
	later := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later}\ndata: {late: here}\n"
	change(map[string]string{"later.yaml": later}, map[string]string{"/all/late": "here", "/all/one": "v10"})
	change(map[string]string{"later.yaml": ""}, map[string]string{"/all/late": "", "/all/one": "v10"})
	change(map[string]string{"later.yaml": later}, map[string]string{"/all/late": "here"})
	if err := is("/fixed", "v0"); err != nil {
		t.Errorf("a subPath is not brought up to date: %v", err)
	}
	slices.Sort(took)
	t.Logf("from the end of the push to all files changed: p50 %v, most %v", took[len(took)/2], took[len(took)-1])
	if half := took[len(took)/2]; half > time.Second { // a machine may stand still now and then
		t.Errorf("half of the updates took %v or more, want at most 1s", half)
	}
	after := c.pods("reader")["reader"]
	if after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod was replaced or restarted: %s", describe(after))
	}
	// What was missed while the agent was away is there when it is back.
	c.kill()
	c.start()
	change(map[string]string{"settings.yaml": fmt.Sprintf(settings, "after")}, map[string]string{"/config/one": "after", "/all/one": "after"})
}
