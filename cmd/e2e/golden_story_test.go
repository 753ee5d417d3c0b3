package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A story is one invocation and what came of it.
type story struct {
	line           string // "$ kubectl get pods"
	stdout, stderr string
	exit           int
}

// same reports whether two stories end alike. Pawl's help and errors say pawl.
func (s story) same(o story) bool {
	return fold(s.stdout) == fold(o.stdout) && fold(s.stderr) == fold(o.stderr) && s.exit == o.exit
}

func fold(text string) string { return strings.ReplaceAll(text, "kubectl", "pawl") }

// String writes a story as it stands in a golden file.
func (s story) String() string {
	return fmt.Sprintf("%s\n%s%sexit %d\n", s.line, numbered("1", s.stdout), numbered("2", s.stderr), s.exit)
}

func numbered(n, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, "\n") {
			b.WriteString(n + "|" + line)
		} else {
			b.WriteString(n + ":" + line + "\n")
		}
	}
	return b.String()
}

// diff shows the lines that only one of two stories has, up to a screenful.
func (s story) diff(want story) string {
	var b strings.Builder
	only(&b, "want ", numbered("1", fold(want.stdout)), numbered("1", fold(s.stdout)))
	only(&b, " got ", numbered("1", fold(s.stdout)), numbered("1", fold(want.stdout)))
	only(&b, "want ", numbered("2", fold(want.stderr)), numbered("2", fold(s.stderr)))
	only(&b, " got ", numbered("2", fold(s.stderr)), numbered("2", fold(want.stderr)))
	if s.exit != want.exit {
		fmt.Fprintf(&b, "want exit %d, got %d\n", want.exit, s.exit)
	}
	if b.Len() == 0 {
		b.WriteString("the same lines in another order\n")
	}
	return b.String()
}

func only(b *strings.Builder, mark, lines, others string) {
	const screenful = 20
	n := 0
	for line := range strings.Lines(lines) {
		if !strings.Contains("\n"+others, "\n"+line) {
			if n++; n <= screenful {
				b.WriteString(mark + line)
			}
		}
	}
	if n > screenful {
		fmt.Fprintf(b, "%sand %d lines more\n", mark, n-screenful)
	}
}

// readStories reads a golden file.
func readStories(t *testing.T, file string) []story {
	text, err := os.ReadFile(filepath.Join(goldenDir, file))
	if err != nil {
		t.Fatal(err)
	}
	var stories []story
	var s story
	for line := range strings.Lines(string(text)) {
		kind, rest := line[:min(2, len(line))], line[min(2, len(line)):]
		switch kind {
		case "# ":
		case "$ ":
			s = story{line: strings.TrimSuffix(line, "\n")}
		case "1|":
			s.stdout += rest
		case "1:":
			s.stdout += strings.TrimSuffix(rest, "\n")
		case "2|":
			s.stderr += rest
		case "2:":
			s.stderr += strings.TrimSuffix(rest, "\n")
		case "ex":
			if s.exit, err = strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "exit"))); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			stories = append(stories, s)
		case "\n":
		default:
			t.Fatalf("%s: what is %q?", file, line)
		}
	}
	return stories
}

// shellWords splits a line as a shell does that knows single quotes only.
func shellWords(t *testing.T, line string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range line + " " {
		switch {
		case r == '\'':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	if quoted {
		t.Fatalf("%s: a quote is open", line)
	}
	return words
}
