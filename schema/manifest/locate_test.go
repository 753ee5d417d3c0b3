package manifest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-project/pawl/schema"
)

const locateText = `# two objects
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data:
  nginx.conf: |
    worker 1;
  empty: ""
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  paused: null
  template:
    spec:
      containers:
      - image: web:1
        name: web
        command: [sleep, "1"]
        ports:
        - containerPort: 53
        - containerPort: 53
          protocol: UDP
        env:
        - {name: A, value: "1"}
        - {name: B, value: "2"}
        volumeMounts:
        - {mountPath: /data, name: v}
      volumes:
      - name: v
        emptyDir: {}
      tolerations:
      - key: a
`

func located(t *testing.T, file, text string, k schema.ObjectKey) []string {
	t.Helper()
	o, ok := Locate(file, []byte(text), k)
	if !ok {
		t.Fatalf("%s is not found", k)
	}
	lines := []string{fmt.Sprint(o.Line)}
	for _, f := range o.Fields {
		lines = append(lines, fmt.Sprintf("%d:%d %s = %s", f.Line, f.Column, f.Path, f.Value))
	}
	return lines
}

func TestLocate(t *testing.T) {
	web := schema.ObjectKey{Kind: schema.Deployments, Namespace: "default", Name: "web"}
	want := []string{
		"10",
		`10:1 apiVersion = "apps/v1"`, `11:1 kind = "Deployment"`, `13:3 metadata.name = "web"`, `15:3 spec.replicas = 2`,
		`20:9 spec.template.spec.containers[name=web].image = "web:1"`, `21:9 spec.template.spec.containers[name=web].name = "web"`,
		`22:9 spec.template.spec.containers[name=web].command = ["sleep","1"]`,
		`24:11 spec.template.spec.containers[name=web].ports[containerPort=53].containerPort = 53`,
		`25:11 spec.template.spec.containers[name=web].ports[containerPort=53,protocol=UDP].containerPort = 53`,
		`26:11 spec.template.spec.containers[name=web].ports[containerPort=53,protocol=UDP].protocol = "UDP"`,
		`28:12 spec.template.spec.containers[name=web].env[name=A].name = "A"`, `28:21 spec.template.spec.containers[name=web].env[name=A].value = "1"`,
		`29:12 spec.template.spec.containers[name=web].env[name=B].name = "B"`, `29:21 spec.template.spec.containers[name=web].env[name=B].value = "2"`,
		`31:12 spec.template.spec.containers[name=web].volumeMounts[mountPath=/data].mountPath = "/data"`,
		`31:30 spec.template.spec.containers[name=web].volumeMounts[mountPath=/data].name = "v"`,
		`33:9 spec.template.spec.volumes[name=v].name = "v"`, `34:9 spec.template.spec.volumes[name=v].emptyDir = {}`,
		`35:7 spec.template.spec.tolerations = [{"key":"a"}]`,
	}
	if diff := cmp.Diff(want, located(t, "a.yaml", locateText, web)); diff != "" {
		t.Error(diff)
	}
	settings := schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "shop", Name: "settings"}
	want = []string{
		"2", `2:1 apiVersion = "v1"`, `3:1 kind = "ConfigMap"`, `4:12 metadata.name = "settings"`, `4:28 metadata.namespace = "shop"`,
		`6:3 data["nginx.conf"] = "worker 1;\n"`, `8:3 data.empty = ""`,
	}
	if diff := cmp.Diff(want, located(t, "a.yaml", locateText, settings)); diff != "" {
		t.Error(diff)
	}
}

func TestLocateElsewhere(t *testing.T) {
	web := schema.ObjectKey{Kind: schema.Deployments, Namespace: "default", Name: "web"}
	list := `{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "web"}}
]}`
	if got := located(t, "a.json", list, web); got[0] != "2" || len(got) != 4 {
		t.Errorf("%q", got)
	}
	// What is wrong with one document does not hide another one.
	if got := located(t, "a.yaml", "a: [\n---\n"+locateText, web); got[0] != "12" {
		t.Errorf("%q", got)
	}
	if got := located(t, "a.yaml", strings.Replace(locateText, "  name: web\nspec", "  name: \"w\\x65b\"\nspec", 1), web); got[0] != "10" {
		t.Errorf("a name that is written in another way: %q", got)
	}
	for file, text := range map[string]string{
		"a.cue": locateText, "b.yaml": "", "c.yaml": "- 1\n", "d.yaml": "kind: Deployment\n", "e.json": "[{]",
		"f.yaml": strings.Replace(locateText, "name: web\nspec", "name: other\nspec", 1),
		"g.yaml": strings.Repeat("#", maxFileBytes+1),
	} {
		if _, ok := Locate(file, []byte(text), web); ok {
			t.Errorf("%s: found", file)
		}
	}
	if !Broken("a.yaml", []byte("a: [\n")) || Broken("a.yaml", []byte(locateText)) {
		t.Error("what cannot be read is not told from what can")
	}
	if _, ok := Locate("a.yaml", []byte("apiVersion: x/v1\nkind: Y\n"), schema.ObjectKey{}); ok {
		t.Error("nothing was found")
	}
}

// A list whose items cannot be told apart has one author.
func TestLocateListsAsAWhole(t *testing.T) {
	k := schema.ObjectKey{Kind: schema.Pods, Namespace: "default", Name: "p"}
	for _, env := range []string{"[{name: A}, {name: A}]", "[{name: A}, {value: x}]", "[1, 2]", "[]"} {
		got := located(t, "a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {env: "+env+"}\n", k)
		if len(got) != 5 || !strings.Contains(got[4], "spec.env = [") {
			t.Errorf("%s: %q", env, got)
		}
	}
}
