package runtimetest

import "slices"

// A Command is what a container of the suite runs. A real runtime needs an image
// with /bin/sh; a fake asks Of what the process would do.
type Command []string

// The commands.
var (
	// HonoursTERM runs until it gets TERM and exits with 0 then. It does not wait
	// in one long call: a shell may lose a signal that comes just before that.
	HonoursTERM = Command{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"}
	// IgnoresTERM runs until it is killed.
	IgnoresTERM = Command{"/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"}
	// Exits0 exits with 0 at once, Exits3 with 3.
	Exits0 = Command{"/bin/sh", "-c", "exit 0"}
	Exits3 = Command{"/bin/sh", "-c", "exit 3"}
	// Greets exits with 0 when the variable GREETING is hello, else with 1.
	Greets = Command{"/bin/sh", "-c", "test \"$GREETING\" = hello"}
	// Speaks writes to both outputs and exits with 0 after a moment.
	Speaks = Command{"/bin/sh", "-c", "echo one; sleep 0.3; echo two >&2; sleep 0.3; printf three"}
	// Missing cannot be started.
	Missing = Command{"/no/such/command"}
)

// Is says whether a container's command is c.
func (c Command) Is(command []string) bool { return slices.Equal(c, command) }
