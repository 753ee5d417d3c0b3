package natsserver

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema/kv"
)

// childDir names the directory for which this test binary is a server to be killed.
const childDir = "PAWL_TEST_NATSSERVER_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		fmt.Println(serveAndWrite(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serveAndWrite writes keys until it is killed, and prints each that was acknowledged.
func serveAndWrite(dir string) error {
	ctx := context.Background()
	fmt.Println("starting")
	s, err := Start(ctx, options(dir, ""))
	if err != nil {
		return err
	}
	creds, err := s.ControlCredentials()
	if err != nil {
		return err
	}
	c, err := kv.Connect(ctx, kv.ConnOptions{InProcess: s, Credentials: creds, Name: "writer", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	store, err := kv.OpenStore(ctx, c, kv.StoreOptions{})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		var writes []kv.Write
		for j := range 1 + 20*(i%2) { // single writes and batches in turn
			writes = append(writes, kv.Write{Bucket: kv.Desired, Key: fmt.Sprintf("k.%d-%d-%d", os.Getpid(), i, j), Value: []byte("{}")})
		}
		if _, err := store.Commit(ctx, writes); err != nil {
			return err
		}
		for _, w := range writes {
			fmt.Println("acked", w.Key)
		}
		// Events may be lost; their stream must be readable all the same.
		about := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "web"}
		if err := store.Publish(ctx, []corev1.Event{{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("web.%x", i%50)}, InvolvedObject: about}}); err != nil {
			return err
		}
	}
}

// runAndKill runs the child, kills it delay after it began to start, or as soon
// as it saw so many keys acknowledged, and returns those.
func runAndKill(t *testing.T, dir string, delay time.Duration, most int) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var key string
		switch _, err := fmt.Sscanf(lines.Text(), "acked %s", &key); {
		case err == nil:
			if acked = append(acked, key); len(acked) == most {
				cancel()
			}
		case lines.Text() == "starting":
			timer := time.AfterFunc(delay, cancel) // which kills it
			defer timer.Stop()
		default:
			t.Errorf("killed after %s before, the server says: %s", delay, lines.Text())
		}
	}
	child.Wait() // it was killed
	return acked
}

// Killed at any moment of its start and of its work, the server starts again and
// has everything that it acknowledged.
func TestKilledServerHasWhatItAcknowledged(t *testing.T) {
	var dir string
	var acked []string
	check := func() {
		t.Helper()
		s := startServer(t, options(dir, ""))
		defer s.Close()
		c, _ := openStore(t, s)
		have := map[string]bool{}
		for _, k := range keysOf(t, c) {
			have[k] = true
		}
		for _, k := range acked {
			if !have[k] {
				t.Errorf("%s was acknowledged and is gone", k)
			}
		}
	}
	for i := range 25 {
		if i%5 == 0 { // anew, so that some are killed while they make their streams
			if i > 0 {
				check()
			}
			dir, acked = t.TempDir(), nil
		}
		acked = append(acked, runAndKill(t, dir, time.Duration(i*6)*time.Millisecond, math.MaxInt)...)
	}
	acked = append(acked, runAndKill(t, dir, time.Minute, 1000)...)
	check()
	if len(acked) == 0 {
		t.Error("nothing was acknowledged in time: the test shows nothing")
	}
	t.Logf("%d keys in the last store", len(acked))
}
