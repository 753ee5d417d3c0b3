package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// store connects as an operator does, with the credentials that `pawld up` leaves.
// The connection is kept and finds a restarted daemon by itself.
func (c *cluster) store(ctx context.Context) (*kv.Conn, error) {
	if c.conn != nil {
		return c.conn, nil
	}
	creds, err := kv.ReadCredsFile(filepath.Join(c.data, "keys", "operator.creds"))
	if err != nil {
		return nil, err
	}
	c.conn, err = kv.Connect(ctx, kv.ConnOptions{URL: "nats://" + c.nats, Credentials: creds, Name: "e2e"})
	return c.conn, err
}

// reports returns the pods that nodes report and that are not gone.
func (c *cluster) reports() ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	values, err := c.readReports(ctx)
	for ; errors.Is(err, schema.ErrUnavailable) && ctx.Err() == nil; values, err = c.readReports(ctx) {
		time.Sleep(20 * time.Millisecond) // the connection is lost with a daemon that a test killed
	}
	if err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for _, v := range values {
		if v.Report != nil && !v.Report.Gone {
			pods = append(pods, v.Report.Pod)
		}
	}
	return pods, nil
}

func (c *cluster) readReports(ctx context.Context) ([]kv.Actual, error) {
	conn, err := c.store(ctx)
	if err != nil {
		return nil, err
	}
	return kv.ReadAll(ctx, conn, kv.Actuals, "pods.>", kv.DecodeActual)
}

// pods returns the pods that nodes report whose names begin with prefix.
func (c *cluster) pods(prefix string) map[string]corev1.Pod {
	c.t.Helper()
	all, err := c.reports()
	if err != nil {
		c.t.Fatal(err)
	}
	pods := map[string]corev1.Pod{}
	for _, p := range all {
		if strings.HasPrefix(p.Name, prefix) {
			pods[p.Name] = p
		}
	}
	return pods
}

// running waits until exactly n pods with the prefix exist, all of them ready
// and none on its way out.
func (c *cluster) running(prefix string, n int, within time.Duration) map[string]corev1.Pod {
	c.t.Helper()
	var pods map[string]corev1.Pod
	c.eventually(within, fmt.Sprintf("%d pods %s* run", n, prefix), func() error {
		pods = c.pods(prefix)
		if len(pods) != n {
			return fmt.Errorf("%d pods", len(pods))
		}
		for _, p := range pods {
			if p.DeletionTimestamp != nil || !ready(p) {
				return fmt.Errorf("pod %s: %s", p.Name, describe(p))
			}
		}
		return nil
	})
	return pods
}

func ready(p corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// describe is a pod's state in one line.
func describe(p corev1.Pod) string {
	s := string(p.Status.Phase)
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.State.Waiting != nil:
			s += " " + c.Name + ": " + c.State.Waiting.Reason + " " + c.State.Waiting.Message
		case c.State.Terminated != nil:
			s += fmt.Sprintf(" %s: %s %d", c.Name, c.State.Terminated.Reason, c.State.Terminated.ExitCode)
		case c.State.Running != nil:
			s += " " + c.Name + ": running"
		}
	}
	return s
}

// serves waits until a pod without a readiness probe, which is ready as soon as
// its process runs, answers a GET with a body that holds a text.
func (c *cluster) serves(url, text string) {
	c.t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	c.eventually(30*time.Second, url+" answers", func() error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if body := readAll(c.t, response); !strings.Contains(body, text) {
			return fmt.Errorf("it answers %q, want %q in it", body, text)
		}
		return nil
	})
}

func readAll(t testing.TB, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}
