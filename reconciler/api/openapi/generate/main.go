// Command generate writes the documents that package openapi embeds: those of
// the groups that Pawl serves, from the source of Kubernetes in the module
// cache, and Pawl's own. Run it with `go generate ./reconciler/api/openapi`.
//
// It refuses to change what upstream says: it leaves out white space, adds the
// values of enumerations as upstream's server does, and to Pawl's own document the
// schemas that it refers to.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// source is the release whose documents are taken. It is the version that the
// server says it speaks.
const source = "k8s.io/kubernetes@v1.36.3"

// groups are the documents to take, as upstream names their files.
var groups = []string{
	"api", "api__v1", "apis", "apis__apps", "apis__apps__v1",
	"apis__authentication.k8s.io", "apis__authentication.k8s.io__v1",
	"apis__authorization.k8s.io", "apis__authorization.k8s.io__v1",
	"apis__coordination.k8s.io", "apis__coordination.k8s.io__v1",
	"apis__scheduling.k8s.io", "apis__scheduling.k8s.io__v1",
	"version",
}

func main() {
	if err := run("documents"); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(into string) error {
	module, err := upstream()
	if err != nil {
		return err
	}
	dir := filepath.Join(module, "api", "openapi-spec", "v3")
	enums, err := readEnumerations(module)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return err
	}
	for _, g := range groups {
		if err := pack(filepath.Join(dir, g+"_openapi.json"), filepath.Join(into, g+".json.gz"), enums); err != nil {
			return err
		}
	}
	own, err := complete("apis__pawl.dev__v1.json", filepath.Join(dir, "api__v1_openapi.json"))
	if err != nil {
		return err
	}
	if own, err = enums.add(own); err != nil {
		return err
	}
	return write(own, filepath.Join(into, "apis__pawl.dev__v1.json.gz"))
}

// upstream finds the module in the module cache, and fetches the module when
// it is not there. It is no dependency of this module.
func upstream() (string, error) {
	download := exec.Command("go", "mod", "download", "-json", source)
	download.Dir = os.TempDir()
	download.Stderr = os.Stderr
	out, err := download.Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w: %s", source, err, strings.TrimSpace(string(out)))
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return "", err
	}
	return module.Dir, nil
}

// pack writes a document without white space, compressed. Equal documents give
// equal files.
func pack(from, to string, enums enumerations) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if text, err = enums.add(text); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return write(text, to)
}

func write(text []byte, to string) error {
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, zipped.Bytes(), 0o644)
}

// A document is the part of an OpenAPI document that complete looks into.
type document struct {
	OpenAPI    string          `json:"openapi"`
	Info       json.RawMessage `json:"info"`
	Paths      json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]json.RawMessage `json:"schemas"`
	} `json:"components"`
}

var reference = regexp.MustCompile(`"#/components/schemas/([^"]+)"`)

// complete adds to our own document the schemas of upstream's that it refers to.
func complete(own, upstream string) ([]byte, error) {
	var ours, theirs document
	for file, into := range map[string]*document{own: &ours, upstream: &theirs} {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	schemas := ours.Components.Schemas
	open := slices.Collect(maps.Values(schemas))
	for len(open) > 0 {
		last := len(open) - 1
		text := open[last]
		open = open[:last]
		for _, m := range reference.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if _, known := schemas[name]; known {
				continue
			}
			found, ok := theirs.Components.Schemas[name]
			if !ok {
				return nil, fmt.Errorf("%s refers to %s, which nobody describes", own, name)
			}
			schemas[name] = found
			open = append(open, found)
		}
	}
	return json.Marshal(ours)
}
