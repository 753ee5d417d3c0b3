package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the file says reaches the flags as it is written there.
func TestValuesOfTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pawld.yaml")
	settled := func(text string) (flag func(string) string, err error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := newUp()
		if err := cmd.ParseFlags([]string{"--config", file}); err != nil {
			t.Fatal(err)
		}
		err = settle(cmd)
		return func(name string) string { return cmd.Flag(name).Value.String() }, err
	}
	flag, err := settled("pod-pids-limit: 4194304\ntls: true\ngit-path:\nnode-name: 17\nregistry-mirror:\n- a=http://1\n- b=http://2\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"pod-pids-limit": "4194304", "tls": "true", "git-path": "", "node-name": "17", "registry-mirror": "[a=http://1,b=http://2]",
	} {
		if got := flag(name); got != want {
			t.Errorf("--%s is %s, want %s", name, got, want)
		}
	}
	for _, text := range []string{"registry-mirror: {a: http://1}\n", "git-path: [[a]]\n"} {
		if _, err := settled(text); err == nil || !strings.Contains(err.Error(), "want a value, or a list of them") {
			t.Errorf("%q gives %v", text, err)
		}
	}
}
