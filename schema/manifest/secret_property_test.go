package manifest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// secretText is a value that nobody would write by accident. Its signs are those
// that lead parsers astray.
func secretText(r *rand.Rand) string {
	const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	b := make([]byte, 16)
	for i := range b {
		b[i] = letters[r.IntN(len(letters))]
	}
	return string(b)
}

// Forms in which a value is written, sound ones and such as break the text.
var secretForms = []func(s string) string{
	func(s string) string { return s },
	func(s string) string { return "*" + s },
	func(s string) string { return "&" + s },
	func(s string) string { return "!" + s },
	func(s string) string { return "!!" + s + " x" },
	func(s string) string { return "!" + s + "!x" },
	func(s string) string { return "&" + s + " [*" + s + "]" },
	func(s string) string { return "@" + s },
	func(s string) string { return "`" + s },
	func(s string) string { return "%" + s },
	func(s string) string { return `"` + s },
	func(s string) string { return "'" + s },
	func(s string) string { return `"\` + s + `"` },
	func(s string) string { return "{" + s },
	func(s string) string { return "[" + s + ", " + s + "]" },
	func(s string) string { return "{a: " + s + ", a: x" + s + "}" },
	func(s string) string { return "{<<: " + s + "}" },
	func(s string) string { return s + ": " + s },
	func(s string) string { return "a: " + s + "\n    b: *" + s },
	func(s string) string { return "|\n " + s },
	func(s string) string { return ">9\n " + s },
	func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	func(string) string { return "{}" },
}

// Objects whose kind is Secret or may be.
var secretDocuments = []string{
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  password: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nimmutable: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\npassword: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: {x: %s}}\n",
	"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  annotations:\n    x: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  creationTimestamp: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  finalizers: %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: %s\n  password: other\n",
	"apiVersion: v1\nkind: Secrets\nmetadata: {name: a}\nstringData:\n  password: %s\n",
	"apiVersion: v2\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: %s\n",
	"apiVersion: v1\nmetadata: {name: a}\nstringData:\n  password: %s\n",
	"kind: [Secret]\napiVersion: 1\nstringData:\n  password: %s\n",
	"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: a}\n  data: {p: %s}\n",
	"apiVersion: v1\nkind: List\nitems: %s\n",
	"apiVersion: v1\nkind: List\nitems: []\nx: %s\n",
	"apiVersion: v1\nkind: SecretList\nitems:\n- %s\n",
	"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {p: %s}\nsops: {mac: %[1]s, version: 3}\n",
	"%s\n",
	"---\n%s\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
	"- %s\n",
}

var secretJSON = []string{
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"p":%s}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"p":"%s}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"p":"%s"}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"p":"-%s-"}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"immutable":"%s"}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","creationTimestamp":"%s"}}`,
	`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"stringData":{"p":"%s","p":"x%[1]s"}}`,
	`{"apiVersion":"v1","kind":"Secret","stringData":{"p":"\%s"}}`,
	`{"apiVersion":"v1","kind":"Secret","stringData":"%s"`,
	`"%s"`,
}

var secretCUE = []string{
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %q & "x"}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %q & int}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %q + 1}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: strings.MinRunes(99) & %q}`,
	"import \"strings\"\n" + `s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: strings.MinRunes(99) & %q}`,
	"import \"strconv\"\n" + `s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: strconv.Atoi(%q)}`,
	"import \"encoding/json\"\n" + `s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: json.Unmarshal(%q)}`,
	"import \"encoding/base64\"\n" + `s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: base64.Decode(null, "-"+%q)}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: =~"^x$" & %q}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: "x" | "y", stringData: p: %q}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: error(%q)}`,
	`s: #Secret & {metadata: name: "a", stringData: p: %q & "x"}`,
	`s: #Secret & {metadata: name: "a", immutable: %q}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %s}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: "%s}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: x %s}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: x "%s"}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: {}.%s}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: [%q][7]}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: [%q, 1]}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", data: p: "-" + %q}`,
	`s: {apiVersion: "v1", kind: "Screet", metadata: name: "a", stringData: p: %q & "x"}`,
	`s: {kind: "Sec" + "ret", metadata: name: "a", stringData: p: %q & "x"}`,
	`p: %q & "x"` + "\n" + `s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: "p": p}`,
	`s: {apiVersion: "v1", kind: "Secret", metadata: name: "a", stringData: p: %q}` + "\n" +
		`c: {apiVersion: "v1", kind: "ConfigMap", metadata: name: "a", data: p: s.stringData.p & "x"}`,
}

// constraintsOnSecrets are those of a cluster, each broken by a sound Secret.
var constraintsOnSecrets = []string{
	`Secret: stringData: p: "x"`,
	`Secret: data: [string]: "eA=="`,
	`Any: data: [string]: =~"^x$"`,
	`Secret: data: [string]: "a" | "b" | int`,
	"import \"strings\"\nSecret: data: [string]: strings.MinRunes(99)",
	`Secret: {data: p: string, _x: data.p & int}`,
	`Secret: {data: p: string, metadata: labels: x: data.p + "!"}`,
	`Secret: data: p: %q & "x"`,
	`_p: %q & "x"` + "\nSecret: data: p: _p",
	`Secret: data: p: %s`,
}

// What a Secret holds is in no fault and no warning, whatever is wrong with it.
func TestFaultsTellNoSecret(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	tries := 0
	try := func(files map[string]string, secret string) {
		t.Helper()
		tries++
		said := saidOf(t, files)
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))} {
			if len(form) >= 16 && strings.Contains(said, form) {
				t.Errorf("%q\ngives away %s:\n%s", files, form, said)
			}
		}
	}
	for _, document := range secretDocuments {
		for _, form := range secretForms {
			s := secretText(r)
			try(map[string]string{"a.yaml": fmt.Sprintf(document, form(s))}, s)
		}
	}
	for _, text := range secretJSON {
		s := secretText(r)
		try(map[string]string{"a.json": fmt.Sprintf(text, s)}, s)
	}
	for _, text := range secretCUE {
		s := secretText(r)
		try(map[string]string{"a.cue": fmt.Sprintf(text, s)}, s)
	}
	for _, text := range constraintsOnSecrets {
		s := secretText(r)
		if strings.Contains(text, "%") {
			text = fmt.Sprintf(text, s)
		}
		try(map[string]string{"cluster.cue": text, "a.yaml": fmt.Sprintf(secretDocuments[0], s)}, s)
	}
	if tries < 500 {
		t.Errorf("%d tries", tries)
	}
}

// saidOf is everything that a tree's faults and warnings say.
func saidOf(t *testing.T, files map[string]string) string {
	t.Helper()
	result, err := NewCompiler(Options{}).Compile(context.Background(), MemTree(files))
	var refusal *schema.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Error()
	case err != nil:
		return err.Error()
	}
	var said []string
	for _, w := range result.Warnings {
		said = append(said, w.String())
	}
	return strings.Join(said, "\n")
}
