package e2e

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var goldenShow = flag.Bool("golden-show", false, "print what was got of each invocation that differs, in the form of the golden files")

const goldenDir = "testdata/golden"

// Golden outputs: the same objects are loaded into Pawl's API as were loaded
// into Kubernetes', the same invocations are run, and standard output, standard
// error and exit code must be the same, but for goldenDifferences.
// testdata/golden/README.md says how they were recorded.
func TestGoldenOutputs(t *testing.T) {
	t.Parallel()
	g := newGolden(t)
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(file, ".txt"), func(t *testing.T) {
			t.Parallel()
			for _, want := range readStories(t, file) {
				g.compare(t, file, differently(t, want))
			}
		})
	}
}

func TestGoldenDifferencesAreOfInvocationsThatAreRun(t *testing.T) {
	run := map[string]bool{}
	for _, file := range goldenFiles(t) {
		for _, s := range readStories(t, file) {
			run[s.line] = true
		}
	}
	for _, d := range goldenDifferences {
		for _, line := range d.lines {
			if !run[recorded+line] {
				t.Errorf("%s: no golden file has it", line)
			}
		}
	}
}

// debianFile is run with the kubectl of the distribution, the others with pawl.
const debianFile = "debian.txt"

func goldenFiles(t *testing.T) []string {
	paths, err := filepath.Glob(filepath.Join(goldenDir, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no golden files: %v", err)
	}
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}

func (g *golden) compare(t *testing.T, file string, want story) {
	got := g.run(t, file, want)
	if got.same(want) {
		return
	}
	t.Errorf("%s\n%s", want.line, got.diff(want))
	if *goldenShow {
		t.Logf("\n%s", got)
	}
}

// run runs one invocation and returns what came of it, in the words of the
// recording.
func (g *golden) run(t *testing.T, file string, s story) story {
	words := shellWords(t, strings.TrimPrefix(s.line, "$ "))
	cmd := exec.Command(pawlBin, words[1:]...)
	if file == debianFile {
		cmd = exec.Command("kubectl", words[1:]...)
	}
	cmd.Env = g.env
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	got := story{line: s.line, stdout: g.mask(stdout.String()), stderr: g.mask(stderr.String()), exit: cmd.ProcessState.ExitCode()}
	if file == "api.txt" {
		got.stdout = onlyServed(stdout.String())
	}
	return got
}

// environment is all that the clients see of this process.
func (g *golden) environment(home string) []string {
	return []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + filepath.Join(home, "config"), "KUBECONFIG=" + filepath.Join(home, "kubeconfig"),
		"TZ=UTC", "PATH=" + os.Getenv("PATH"),
	}
}
