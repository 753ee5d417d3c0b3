package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The Deployment that the introductions begin with, in its old and its present form.
const nginxV1beta1 = `apiVersion: extensions/v1beta1
kind: Deployment
metadata:
  name: nginx-deployment
spec:
  replicas: 3
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:1.7.9
        ports:
        - containerPort: 80
`

const nginxV1 = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: nginx-deployment
spec:
  selector:
    matchLabels:
      app: nginx
  replicas: 2
  template:
    metadata:
      labels:
        app: nginx
    spec:
      containers:
      - name: nginx
        image: nginx:1.7.9
        ports:
        - containerPort: 80
`

// TestNginx follows the story of every introduction: deploy, scale, change the
// image, remove, all by push.
func TestNginx(t *testing.T) {
	t.Parallel()
	c := newCluster(t)

	c.push(map[string]string{"nginx.yaml": nginxV1beta1})
	pods := c.running("nginx-deployment-", 3, 60*time.Second)
	for _, p := range pods {
		c.serves("http://"+p.Status.PodIP+":80/", "1.7.9")
	}

	c.push(map[string]string{"nginx.yaml": nginxV1})
	kept := c.running("nginx-deployment-", 2, 20*time.Second)
	for name := range kept {
		if _, ok := pods[name]; !ok {
			t.Errorf("scaling down made a new pod %s", name)
		}
	}

	c.push(map[string]string{"nginx.yaml": strings.ReplaceAll(nginxV1, "nginx:1.7.9", "nginx:1.16.1")})
	c.eventually(60*time.Second, "both pods serve the new image", func() error {
		now := c.pods("nginx-deployment-")
		if len(now) != 2 {
			return fmt.Errorf("%d pods", len(now))
		}
		for name, p := range now {
			if _, old := kept[name]; old || p.Spec.Containers[0].Image != "nginx:1.16.1" || !ready(p) {
				return fmt.Errorf("pod %s runs %s, ready %t", name, p.Spec.Containers[0].Image, ready(p))
			}
		}
		return nil
	})

	for _, p := range c.pods("nginx-deployment-") {
		c.serves("http://"+p.Status.PodIP+":80/", "1.16.1")
	}

	c.push(map[string]string{"nginx.yaml": ""})
	c.eventually(20*time.Second, "every pod is gone", func() error {
		if now := c.pods("nginx-deployment-"); len(now) > 0 {
			return fmt.Errorf("%d pods are left", len(now))
		}
		return nil
	})
}
