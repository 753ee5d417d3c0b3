package nodeagent

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// Whatever lies in the agent's files, it starts: what it understands is what the
// file's name says, and the rest is set aside. What it wrote it reads again.
func FuzzDiskRecords(f *testing.F) {
	f.Add([]byte(`{"node":"n1","pod":{"metadata":{"name":"a","namespace":"default","uid":"u1"}}}`), []byte(`{"phase":"Running"}`), []byte(`{"metadata":{"name":"m","namespace":"default"},"data":{"a":"b"}}`))
	f.Add([]byte(`null`), []byte(`null`), []byte(`null`))
	f.Add([]byte(`{"pod":{"metadata":{"uid":"../u1"}}}`), []byte(`[`), []byte(`{"metadata":{"name":"m"},"binaryData":{"a":"!"}}`))
	f.Fuzz(func(t *testing.T, pod, status, object []byte) {
		dir := memoryDir(t)
		d, err := openDisk(dir)
		if err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string][]byte{
			"pods/u1.json": pod, "status/u1.json": status, "objects/configmaps.default_m.json": object, "objects/secrets.default_m.json": object, "pods/cut.json.new": pod,
		} {
			if err := os.WriteFile(filepath.Join(dir, path), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		k, err := d.load(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range k.pods {
			if p.Pod.UID != "u1" || p.status == nil {
				t.Errorf("took up %+v", p)
			}
			if err := d.putPod(p.Assignment); err != nil {
				t.Error(err)
			}
		}
		for _, m := range k.objects.ConfigMaps {
			if m.Namespace != "default" || m.Name != "m" {
				t.Errorf("took up %s/%s", m.Namespace, m.Name)
			}
		}
		again, err := d.load(slog.New(slog.DiscardHandler))
		if err != nil || len(again.pods) != len(k.pods) || len(again.objects.ConfigMaps) != len(k.objects.ConfigMaps) || len(again.objects.Secrets) != len(k.objects.Secrets) {
			t.Errorf("read again: %v, %+v", err, again)
		}
	})
}

// No name of a pod or an object leads out of the directory.
func FuzzDiskNames(f *testing.F) {
	f.Add("u1", "default", "a")
	f.Add("../u1", "..", "../../x")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, uid, namespace, name string) {
		dir := memoryDir(t)
		d, err := openDisk(filepath.Join(dir, "agent"))
		if err != nil {
			t.Fatal(err)
		}
		if len(uid)+len(namespace)+len(name) > 200 {
			return // longer than a file's name may be
		}
		put := d.putPod(schema.Assignment{Node: "n1", Pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}}}) == nil
		k := schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: namespace, Name: name}
		kept := d.putObject(k, corev1.ConfigMap{}) == nil
		for where, n := range map[string]int{dir: 1, d.pods: count(put), d.objects: count(kept)} {
			if entries, err := os.ReadDir(where); err != nil || len(entries) != n {
				t.Errorf("%s holds %v, %v", where, entries, err)
			}
		}
	})
}

func count(there bool) int {
	if there {
		return 1
	}
	return 0
}

// memoryDir is on no disk, whose syncs would be all that is tested.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "pawl-fuzz-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
