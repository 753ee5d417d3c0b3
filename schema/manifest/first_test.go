package manifest

import (
	"context"
	"encoding/json"
	"testing"
)

func TestNginx(t *testing.T) {
	r, err := NewCompiler(Options{}).Compile(context.Background(), MemTree(map[string]string{"a.yaml": `
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: nginx, creationTimestamp: null}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: nginx}}
    spec:
      containers: [{name: nginx, image: "nginx:1.7.9", ports: [{containerPort: 80}]}]
status: {}
---
---
apiVersion: v1
kind: Namespace
metadata: {name: x}
`}))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := json.MarshalIndent(r, "", " ")
	t.Log(string(b))
}
