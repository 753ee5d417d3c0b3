package e2e

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// killContainerd kills the instance's containerd so often, at random instants,
// each time once another has been started in its place.
func (c *cluster) killContainerd(times int) {
	c.t.Helper()
	last := 0
	for range times {
		time.Sleep(time.Duration(50+rand.IntN(300)) * time.Millisecond)
		c.eventually(30*time.Second, "another containerd", func() error {
			pid, err := c.findContainerd()
			if err == nil && pid == last {
				err = fmt.Errorf("containerd %d is dying", pid)
			}
			if err != nil {
				return err
			}
			last = pid
			return syscall.Kill(pid, syscall.SIGKILL)
		})
	}
}

// TestContainerdKilledAgainAndAgain kills containerd while 20 pods start and
// while they stop: all come and all go soon after the last kill, and none waits
// for a back-off that it took on meanwhile.
func TestContainerdKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.push(map[string]string{"steady.yaml": sleepers("steady", 2)})
	steady := c.running("steady-", 2, 60*time.Second)
	pids := c.taskPIDs()
	c.push(map[string]string{"many.yaml": sleepers("many", 20)})
	c.killContainerd(5) // after six deaths in a row the node would be not ready for a while
	began := time.Now()
	c.running("many-", 20, 20*time.Second)
	t.Logf("20 pods ran %s after the last kill", time.Since(began).Round(time.Millisecond))

	c.push(map[string]string{"many.yaml": ""})
	c.killContainerd(5)
	began = time.Now()
	c.running("many-", 0, 20*time.Second)
	t.Logf("they were gone %s after the last kill", time.Since(began).Round(time.Millisecond))
	c.eventually(20*time.Second, "containerd answers", func() error {
		_, err := c.ctr("version")
		return err
	})
	if err := sameContainers(steady, c.running("steady-", 2, 20*time.Second)); err != nil {
		t.Error(err)
	}
	for id, pid := range c.taskPIDs() {
		if pids[id] != pid {
			t.Errorf("container %s has pid %d, had %d", id, pid, pids[id])
		}
	}
}
