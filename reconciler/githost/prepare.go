package githost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	// staleLock is the age from which a lock is nobody's any more: a lock is
	// held for milliseconds.
	staleLock = 10 * time.Second
	// handOnFirst and handOnLongest are the pauses between tries to hand on a push.
	handOnFirst   = 50 * time.Millisecond
	handOnLongest = 15 * time.Second
	// grace is how long a quarantine of a former daemon's push is left alone. A
	// push that was accepted just before the daemon was killed still moves its
	// objects out of there; it takes milliseconds, and must not be disturbed.
	grace = time.Minute
)

// config is the repository's whole configuration, written at every start. The
// comments go into the file: it is what an operator finds.
const config = `# Written by pawld at every start; changes are lost.
[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	# An acknowledged push survives a power cut.
	fsync = objects,derived-metadata,reference
	# Blobs above this are streamed and never a delta: memory stays bounded.
	bigFileThreshold = 8m
	packedGitWindowSize = 16m
	packedGitLimit = 128m
	deltaBaseCacheLimit = 16m
	hooksPath = %[1]s
	# A quarantine names the repository as its alternate; asking that for its
	# references would cost a process and tell nothing new.
	alternateRefsCommand = true
	logAllRefUpdates = true
[http]
	receivepack = true
	uploadpack = true
	getanyfile = false
[receive]
	fsckObjects = true
	maxInputSize = %[2]d
	autogc = false
	updateServerInfo = false
	# The deployed branch may go back, but not away.
	denyNonFastForwards = false
	denyDeleteCurrent = refuse
	advertisePushOptions = false
[transfer]
	hideRefs = refs/pawl
	unpackLimit = 100
[uploadpack]
	allowFilter = true
[gc]
	auto = 2000
	autoPackLimit = 20
	autoDetach = false
	pruneExpire = 2.weeks.ago
[pack]
	threads = 1
	windowMemory = 32m
[index]
	threads = 1
`

// findGit returns the paths of git and of its http-backend, which is called
// without git in between: one process less for every request.
func findGit() (git, backend string, err error) {
	git, err = exec.LookPath("git")
	if err != nil {
		return "", "", fmt.Errorf("the built-in repository needs git: %w: %w", err, schema.ErrUnavailable)
	}
	out, err := exec.Command(git, "--exec-path").Output()
	if err != nil {
		return "", "", fmt.Errorf("git --exec-path: %w", err)
	}
	backend = filepath.Join(strings.TrimSpace(string(out)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		return "", "", fmt.Errorf("git http-backend: %w: %w", err, schema.ErrUnavailable)
	}
	return git, backend, nil
}

// prepare brings the repository and the run directory into the state that a
// push needs, whatever was there before.
func (h *Host) prepare() error {
	if err := os.MkdirAll(h.o.Dir, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(h.o.RunDir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"config.lock", "HEAD.lock", "packed-refs.lock"} {
		removeStale(filepath.Join(h.o.Dir, name), staleLock)
	}
	if err := h.removeLeftovers(); err != nil {
		return err
	}
	if err := checkBranch(h.git, h.o.Branch); err != nil {
		return err
	}
	hooks := filepath.Join(h.o.Dir, "hooks")
	if strings.ContainsAny(hooks, "\"\\\n") {
		return fmt.Errorf("the path %q cannot stand in a Git configuration: %w", hooks, schema.ErrRefused)
	}
	text := fmt.Sprintf(config, `"`+hooks+`"`, h.o.MaxPackBytes)
	if err := writeFile(filepath.Join(h.o.Dir, "config"), text, 0o600); err != nil {
		return err
	}
	// Git knows best what a repository consists of; on one that is there, this
	// completes what a kill left out. The configuration above stays.
	cmd := exec.Command(h.git, "init", "--quiet", "--bare", "--template=", "--initial-branch="+h.o.Branch, h.o.Dir)
	cmd.Env = h.gitEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git init: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := writeFile(filepath.Join(h.o.Dir, "HEAD"), "ref: refs/heads/"+h.o.Branch+"\n", 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(hooks, 0o700); err != nil {
		return err
	}
	return writeFile(filepath.Join(hooks, "pre-receive"), hook, 0o700)
}

func checkBranch(git, branch string) error {
	cmd := exec.Command(git, "check-ref-format", "refs/heads/"+branch)
	if err := cmd.Run(); err != nil || strings.HasPrefix(branch, "-") {
		return fmt.Errorf("%q cannot be a branch's name: %w", branch, schema.ErrRefused)
	}
	return nil
}

// removeLeftovers removes what a killed daemon or git left behind: directories
// of pushes (every push of a former daemon is lost to us), and locks of
// references that would refuse every later push. Quarantines wait for Run.
func (h *Host) removeLeftovers() error {
	left, err := filepath.Glob(filepath.Join(h.o.RunDir, pushDirPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if h.orphans, err = filepath.Glob(filepath.Join(h.o.Dir, "objects", quarantinePrefix+"*")); err != nil {
		return err
	}
	return h.removeStaleLocks(staleLock)
}

// removeOrphans removes the quarantines that were there when the host was made.
// Git leaves them behind when the daemon is killed in the middle of a push.
func (h *Host) removeOrphans() {
	for _, dir := range h.orphans {
		if err := os.RemoveAll(dir); err != nil {
			h.log.Warn("what a killed push left cannot be removed", "error", err)
		}
	}
	h.orphans = nil
}

// removeStaleLocks removes locks that are older than any that is still held.
func (h *Host) removeStaleLocks(age time.Duration) error {
	for _, name := range []string{"packed-refs.lock", "gc.pid.lock"} {
		removeStale(filepath.Join(h.o.Dir, name), age)
	}
	err := filepath.WalkDir(filepath.Join(h.o.Dir, "refs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if !d.IsDir() && strings.HasSuffix(path, ".lock") {
			removeStale(path, age)
		}
		return nil
	})
	return err
}

func removeStale(path string, age time.Duration) {
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > age {
		os.Remove(path) // when it fails, the push that meets the lock says so
	}
}

// writeFile replaces a file as a whole, and only when its content differs.
func writeFile(path, content string, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == content {
		return os.Chmod(path, mode)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.WriteString(content); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// gitEnv is the whole environment of every git that the host starts: nothing
// of the daemon's own, no system or user configuration.
func (h *Host) gitEnv() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:" + filepath.Dir(h.git),
		"HOME=/nonexistent",
		"XDG_CONFIG_HOME=/nonexistent",
		"LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_CONFIG_COUNT=1", // the data directory may belong to another user
		"GIT_CONFIG_KEY_0=safe.directory",
		"GIT_CONFIG_VALUE_0=" + h.o.Dir,
		"GIT_TERMINAL_PROMPT=0",
		"GIT_COMMITTER_NAME=pawl", // of the reflog
		"GIT_COMMITTER_EMAIL=pawl@localhost",
	}
}

// Run keeps the repository small: it removes what killed pushes left, and when a
// push has come it asks git whether there is enough to pack, at most once in ten
// minutes. A push that could not be handed on when it was accepted it hands on as
// soon as that is possible. It returns nil when ctx is done.
func (h *Host) Run(ctx context.Context) error {
	const pause = 10 * time.Minute
	orphaned := time.NewTimer(grace)
	defer orphaned.Stop()
	grown := (<-chan struct{})(h.grown)
	var rested, later <-chan time.Time
	pauses := handOnFirst
	catchUp := func() {
		later = nil
		if err := h.handOn(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("an accepted push could not be handed on, trying again", "error", err, "in", pauses)
			later, pauses = time.After(pauses), min(2*pauses, handOnLongest)
			return
		}
		pauses = handOnFirst
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-orphaned.C:
			h.removeOrphans()
		case <-h.missed:
			catchUp()
		case <-later:
			catchUp()
		case <-rested:
			grown = h.grown
		case <-grown:
			if err := h.tidy(ctx); err != nil && ctx.Err() == nil {
				h.log.Warn("the repository could not be tidied", "error", err)
			}
			grown, rested = nil, time.After(pause)
		}
	}
}

// tidy runs git gc when there is enough to collect, and removes stale locks.
func (h *Host) tidy(ctx context.Context) error {
	if err := h.removeStaleLocks(time.Minute); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.git, "gc", "--auto", "--quiet")
	cmd.Dir = h.o.Dir
	cmd.Env = h.gitEnv()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // git removes its locks
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git gc: %w: %s", err, strings.TrimSpace(string(out[:min(len(out), 500)])))
	}
	return nil
}
