package manifest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const fineConfigMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fine}\n"

// CUE that eats memory, time or the stack is refused with the file's name; what
// stands beside it is judged all the same, and the compiler goes on working.
func TestHostileCUE(t *testing.T) {
	bombs := map[string]string{
		"memory":   "import \"list\"\na: [for x in list.Range(0, 100000000, 1) {x, y: [x, x, x, x]}]\n",
		"for ever": "import \"list\"\n#n: list.Range(0, 4000, 1)\na: len([for x in #n for y in #n for z in #n if x+y+z < 0 {x}])\n",
		"doubling": doubling(),
	}
	for name, bomb := range bombs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := NewCompiler(Options{})
			_, err := c.Compile(context.Background(), MemTree(map[string]string{"bad/bomb.cue": bomb, "good/fine.cue": "apiVersion: \"v1\"\nkind: \"ConfigMap\"\nmetadata: name: \"x\"\nnope: 1\n", "fine.yaml": fineConfigMap}))
			var refusal *schema.Refusal
			if !errors.As(err, &refusal) {
				t.Fatalf("got %v, want a refusal", err)
			}
			text := refusal.Error()
			// Which of the limits it meets first is the machine's business.
			if !strings.Contains(text, "bad/bomb.cue: cannot be evaluated: its ") {
				t.Errorf("the bomb is not named: %s", text)
			}
			if !strings.Contains(text, "good/fine.cue:4:1: ConfigMap default/x: nope: unknown field") {
				t.Errorf("the other file is not judged: %s", text)
			}
			if _, err := c.Compile(context.Background(), MemTree(map[string]string{"fine.yaml": fineConfigMap})); err != nil {
				t.Errorf("the next commit is refused: %v", err)
			}
			t.Log(strings.SplitN(text, "\n", 2)[0])
		})
	}
}

// hogMarker starts this test's binary as a process that takes the child's limits
// and then more memory than they allow.
const hogMarker = "PAWL_TEST_HOG"

func hogMain() {
	if os.Getenv(hogMarker) == "" {
		return
	}
	if err := limitChild(); err != nil {
		panic(err)
	}
	var all [][]byte
	for range 2 * childMemory / (1 << 20) {
		all = append(all, bytes.Repeat([]byte{1}, 1<<20))
	}
	os.Exit(len(all) & 1) // not reached
}

// The limit on memory is there, and its end is understood as that.
func TestChildMemoryIsLimited(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{hogMarker + "=1", "GOTRACEBACK=none"}
	words := &lastWords{limit: childStderr}
	cmd.Stderr = words
	err := cmd.Run()
	if err == nil {
		t.Fatal("the hog got what it wanted")
	}
	if why := whyDied(context.Background(), io.EOF, err, words.String()); why != "its evaluation needs more than 1024 MiB of memory" {
		t.Errorf("its end is taken for: %s\n%s", why, words.String())
	}
}

// doubling is a few lines that describe 2^40 values.
func doubling() string {
	var b strings.Builder
	b.WriteString("a0: {x: 1, y: 2}\n")
	for i := 1; i <= 40; i++ {
		prev := "a" + string(rune('0'+(i-1)/10)) + string(rune('0'+(i-1)%10))
		if i == 1 {
			prev = "a0"
		}
		b.WriteString("a" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ": {l: " + prev + ", r: " + prev + "}\n")
	}
	return b.String()
}

func TestHostileConstraint(t *testing.T) {
	c := NewCompiler(Options{})
	_, err := c.Compile(context.Background(), MemTree(map[string]string{
		"policy/bomb.cue": "import \"list\"\nAny: metadata: annotations: x: \"\\(len([for x in list.Range(0, 100000000, 1) {x}]))\"\n",
		"fine.yaml":       fineConfigMap,
	}))
	var refusal *schema.Refusal
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Error(), "policy/bomb.cue: cannot be evaluated: its ") {
		t.Fatalf("got %v", err)
	}
}

// The child ends with the caller's context, and the compiler returns at once.
func TestChildEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := NewCompiler(Options{}).Compile(ctx, MemTree(map[string]string{"a.cue": "import \"list\"\n#n: list.Range(0, 4000, 1)\na: len([for x in #n for y in #n for z in #n if x+y+z < 0 {x}])\n"}))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
}

// A child that cannot be started is nobody's fault in the repository.
func TestNoChild(t *testing.T) {
	_, err := NewCompiler(Options{Child: []string{"/nonexistent/child"}}).Compile(context.Background(), MemTree(map[string]string{"a.cue": "a: 1"}))
	var refusal *schema.Refusal
	if err == nil || errors.As(err, &refusal) || !errors.Is(err, schema.ErrUnavailable) {
		t.Fatalf("got %v, want unavailable", err)
	}
}

// The child sees no environment and no file: its CUE cannot name any.
func TestChildEnvironmentIsEmpty(t *testing.T) {
	t.Setenv("PAWL_TOKEN", "secret")
	if os.Getenv(childMarker) != "" {
		t.Fatal("this process is a child")
	}
	_, err := NewCompiler(Options{}).Compile(context.Background(), MemTree(map[string]string{"a.cue": "@embed(file=\"/etc/passwd\")\nx: _ @embed(file=\"/etc/passwd\", type=text)\napiVersion: \"v1\"\nkind: \"ConfigMap\"\nmetadata: name: \"x\"\ndata: x: x\n"}))
	if err == nil {
		t.Fatal("a file of the machine was read")
	}
	if strings.Contains(err.Error(), "root:") {
		t.Fatalf("the refusal shows a file of the machine: %v", err)
	}
}
