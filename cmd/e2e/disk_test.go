package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a file system of some megabytes for an instance's data. It is
// gone after the test; make the cluster after it.
func smallDisk(t *testing.T, megabytes int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the small disk: %v", err)
			return
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		t.Fatalf("mount a small disk: %v", err)
	}
	return dir
}

// fill leaves no room on a disk, and returns how to make room again.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
	free = sync.OnceFunc(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(free) // nothing can be removed from a full disk
	return free
}

// TestFullDisk fills the disk that holds everything of an instance: pods live
// on, /readyz says what is wrong, and once there is room everything goes on
// without a restart, with nothing lost.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 256)
	c := prepareCluster(t)
	c.data = filepath.Join(disk, "d")
	c.start()
	c.git("", "clone", "-q", "-c", "include.path="+c.gitConfig(), c.repository(), c.work)
	c.push(map[string]string{"a.yaml": sleepers("a", 3), "b.yaml": sleepers("b", 1)})
	steady := c.running("a-", 3, 60*time.Second)
	c.running("b-", 1, 60*time.Second)
	pids := c.taskPIDs()

	free := fill(t, disk)
	// Something happens that has to be stored: a container ends, and runs again.
	for _, p := range c.pods("b-") {
		id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
		delete(pids, id)
		if out, err := c.ctr("tasks", "kill", "-s", "KILL", id); err != nil {
			t.Fatalf("ctr: %v\n%s", err, out)
		}
	}
	c.eventually(60*time.Second, "readyz says that the store takes no writes", func() error {
		if s := c.readiness(); !strings.Contains(s, "takes no writes") {
			return fmt.Errorf("readyz: %s", s)
		}
		return nil
	})
	for id, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d of %s did not live through it: %v", pid, id, err)
		}
	}
	select {
	case <-c.done:
		t.Fatalf("pawld ended:\n%s", c.tail())
	default:
	}

	free()
	began := time.Now()
	c.eventually(60*time.Second, "ready again", c.ready)
	t.Logf("ready %s after there was room", time.Since(began).Round(time.Millisecond))
	c.push(map[string]string{"c.yaml": strings.Replace(sleepers("c", 2), "    spec:\n", "    spec:\n      tolerations: [{operator: Exists}] # the node says DiskPressure for five minutes more\n", 1)})
	c.running("c-", 2, 60*time.Second)
	c.running("b-", 1, 60*time.Second)
	if err := sameContainers(steady, c.running("a-", 3, 30*time.Second)); err != nil {
		t.Error(err)
	}
	for id, pid := range c.taskPIDs() {
		if before, ok := pids[id]; ok && before != pid {
			t.Errorf("container %s has pid %d, had %d", id, pid, before)
		}
	}
}

// readiness is what /readyz answers.
func (c *cluster) readiness() string {
	token, err := os.ReadFile(filepath.Join(c.data, "token"))
	if err != nil {
		return err.Error()
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+c.http+"/readyz?verbose", nil)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return fmt.Sprint(response.Status, " ", string(text), err)
}
