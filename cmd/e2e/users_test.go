package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOwnUsers has two pods with users of their own (hostUsers: false), with
// volumes of every kind that Pawl makes: in each, root is another user of the
// node without rights there, sees what is its own, and writes what a pod with
// the node's users reads as root's. The agent's death changes nothing.
func TestOwnUsers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if err := os.Chmod(filepath.Dir(c.run), 0o711); err != nil { // the pods' users must get through
		t.Fatal(err)
	}
	shared := t.TempDir()
	volumes := `  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: conf, configMap: {name: conf}}
  - {name: key, secret: {secretName: key, defaultMode: 0400}}
  - {name: host, hostPath: {path: ` + shared + `}}`
	mounts := "    volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}, {name: conf, mountPath: /conf}, {name: key, mountPath: /key}, {name: host, mountPath: /shared}]\n    image:"
	mapped := func(name string) string {
		script := "set -e; cat /conf/word /key/word; touch /disk/a /memory/a; chown 1000 /disk/a; echo $0 > /shared/" + name + "; exec sleep 1000000"
		return strings.Replace(barePod(name, script, "  hostUsers: false\n"+volumes), "    image:", mounts, 1)
	}
	c.push(map[string]string{
		"conf.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {word: open}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {word: closed}\n",
		"one.yaml":  mapped("one"), "two.yaml": mapped("two"),
	})
	ranges := map[string]string{}
	before := map[string]string{}
	for _, name := range []string{"one", "two"} {
		c.running(name, 1, 60*time.Second)
		c.eventually(30*time.Second, name+" has written what it writes", func() error {
			_, err := os.Stat(filepath.Join(shared, name)) // the last of it
			return err
		})
		fields := strings.Fields(c.inPod(name, "main", "cat /proc/self/uid_map; stat -c %u:%U /disk/a /memory/a /shared/"+name+" /key/word"))
		if len(fields) < 7 || fields[0] != "0" || fields[2] != "65536" || strings.Join(fields[3:], " ") != "1000:UNKNOWN 0:root 0:root 0:root" {
			t.Errorf("%s: %q", name, fields)
			continue
		}
		if other, taken := ranges[fields[1]]; taken || fields[1] == "0" {
			t.Errorf("%s has the users of %s: %s", name, other, fields[1])
		}
		ranges[fields[1]] = name
		before[name] = c.pods(name)[name].Status.ContainerStatuses[0].ContainerID
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(shared, name), &st); err != nil || st.Uid != 0 {
			t.Errorf("what root of %s wrote to a hostPath is of user %d: %v", name, st.Uid, err)
		}
	}
	c.kill()
	c.start()
	for name, id := range before {
		c.running(name, 1, 60*time.Second)
		c.reached(name, "main")
		if now := c.pods(name)[name].Status.ContainerStatuses[0]; now.ContainerID != id || now.RestartCount != 0 {
			t.Errorf("%s was started again", name)
		}
		c.inPod(name, "main", "touch /disk/after /shared/after-"+name)
	}
}
