package containerd

import (
	"errors"
	"testing"
)

func TestLeftBundleIsKnownByItsPathAlone(t *testing.T) {
	const id = "0123abcd"
	const path = "/run/pawl/containerd/state/io.containerd.runtime.v2.task/pawl/" + id
	for text, want := range map[string]string{
		"failed to start shim: mkdir " + path + ": file exists: unknown":    path,
		"failed to start shim: mkdir " + path + "4: file exists":            "",
		"failed to start shim: mkdir " + path + ": no space left on device": "",
		"failed to start shim: mkdir /etc/../" + path + ": file exists":     "",
		"mkdir /etc: file exists":                                           "",
		"OCI runtime create failed: mkdir " + id + ": file exists":          "",
		"mkdir io.containerd.runtime.v2.task/pawl/" + id + ": file exists":  "",
	} {
		if got := leftBundle(errors.New(text), id); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if leftBundle(nil, id) != "" {
		t.Error("no error, and yet")
	}
}
