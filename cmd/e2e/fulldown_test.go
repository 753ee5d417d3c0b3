package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDownOnAFullDisk takes an instance down whose disk, with all that it has,
// is full, whether its daemons live or not: nothing runs afterwards, and nothing
// is mounted.
func TestDownOnAFullDisk(t *testing.T) {
	for name, dead := range map[string]bool{"alive": false, "dead": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, 256)
			c := prepareCluster(t)
			c.data, c.run = filepath.Join(disk, "d"), filepath.Join(disk, "r")
			c.start()
			c.git("", "clone", "-q", "-c", "include.path="+c.gitConfig(), c.repository(), c.work)
			writer := strings.Replace(barePod("writer", "while :; do cat /dev/zero >> /scratch/more 2>/dev/null; sleep 0.1; done", "  volumes:\n  - {name: scratch, emptyDir: {}}"),
				"    image:", "    volumeMounts: [{name: scratch, mountPath: /scratch}]\n    image:", 1)
			c.push(map[string]string{"a.yaml": sleepers("a", 3), "b.yaml": barePod("quiet", "exec sleep 1000000", "")})
			c.running("a-", 3, 60*time.Second)
			c.running("quiet", 1, 60*time.Second)
			pids := c.taskPIDs()
			c.push(map[string]string{"c.yaml": writer})
			c.eventually(60*time.Second, "the disk is full", func() error {
				f, err := os.Create(filepath.Join(disk, "probe"))
				if err != nil {
					return nil
				}
				defer f.Close()
				if _, err := f.Write(make([]byte, 64<<10)); err != nil {
					return nil
				}
				return os.ErrExist
			})
			fill(t, disk)
			if dead {
				c.kill()
				if err := syscall.Kill(c.containerdPID(), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			out, err := c.pawld(60*time.Second, "down", "--data", c.data, "--run", c.run, "--pod-cidr", c.cidr)
			if err != nil {
				t.Errorf("pawld down: %v\n%s", err, out)
			}
			for id, pid := range pids {
				if lives(pid) {
					t.Errorf("process %d of %s lives", pid, id)
				}
			}
			if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), " "+disk+"/") {
				t.Errorf("something is mounted below %s: %v", disk, err)
			}
		})
	}
}

// lives says whether a process is there and has not ended. One that has ended is
// there until its parent looks, and its shim's is the machine's first process.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[0]
	return state != "Z" && state != "X"
}
