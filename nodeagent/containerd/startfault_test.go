package containerd

import (
	"errors"
	"testing"
)

// What runc says of a container is its fault and stays; what it could not say,
// or says of a start that was cut off, is tried again.
func TestStartFaults(t *testing.T) {
	for text, want := range map[string]string{
		`OCI runtime create failed: runc create failed: unable to start container process: exec: "/nope": no such file: unknown`:                                                                        `exec: "/nope": no such file`,
		`failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): runc did not terminate successfully: exit status 1`: "",
		`OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): exec: "runc": executable file not found in $PATH: unknown`:                      "",
		`OCI runtime create failed: container with given ID already exists: unknown`:                                                                                                                    "",
		`OCI runtime start failed: signal: killed: unknown`:                                                                      "",
		`failed to create shim task: OCI runtime create failed: runc did not terminate successfully: exit status 137: : unknown`: "",
		`OCI runtime start failed: runc did not terminate successfully: exit status 143: unknown`:                                "",
		`OCI runtime create failed: runc did not terminate successfully: exit status 1: no space left on device: unknown`:        "runc did not terminate successfully: exit status 1: no space left on device",
		`ttrpc: closed`: "",
	} {
		if got, ok := startFault(errors.New(text)); got != want || ok != (want != "") {
			t.Errorf("%s\nis %q, %v; want %q", text, got, ok, want)
		}
	}
}
