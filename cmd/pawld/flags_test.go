package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One file serves up and down: down passes over what only up has.
func TestDownReadsTheFileOfUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pawld.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("pod-cidr: 10.9.0.0/24\nregistry-mirror: [docker.io=http://127.0.0.1:5000]\n")
	cmd := newDown()
	if err := cmd.ParseFlags([]string{"--config", file}); err != nil {
		t.Fatal(err)
	}
	if err := settle(cmd); err != nil {
		t.Fatal(err)
	}
	if got := cmd.Flag("pod-cidr").Value.String(); got != "10.9.0.0/24" {
		t.Errorf("pod-cidr is %s", got)
	}
	write("pod-cidrr: 10.9.0.0/24\n")
	if err := settle(cmd); err == nil || !strings.Contains(err.Error(), `no setting "pod-cidrr"`) {
		t.Errorf("a typo gives %v", err)
	}
}
