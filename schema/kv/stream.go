package kv

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A stream carries bytes both ways between the control plane and a node: a
// log that is read, a command that is run, a connection into a pod, files. The control plane opens it; the node
// accepts it or says why not. Each side may send only as much as the other has
// granted, so a slow reader holds its writer back and costs one window of
// memory. Everything of a stream ends when either side closes it, when a
// connection to NATS is lost, and when the other side is silent for ten seconds.

// What a stream's bytes are.
const (
	ChannelStdin  byte = 0 // to the node
	ChannelStdout byte = 1 // to the control plane; also what a log holds
	ChannelStderr byte = 2 // to the control plane
	ChannelResult byte = 3 // to the control plane: a StreamResult as JSON, once, last
	ChannelResize byte = 4 // to the node: a TermSize as JSON; the newest wins and overtakes what waits
)

// A StreamVerb is what a stream is for.
type StreamVerb string

// The verbs of streams.
const (
	StreamLog     StreamVerb = "log"
	StreamExec    StreamVerb = "exec"
	StreamAttach  StreamVerb = "attach"      // to the container's own process; as exec
	StreamForward StreamVerb = "portforward" // one TCP connection; stdin and stdout are its two directions
	StreamArchive StreamVerb = "archive"     // files as a tar: read from stdout, or written from stdin with a StreamResult at the end
)

// A StreamRequest is what the control plane asks of a node.
type StreamRequest struct {
	Verb      StreamVerb            `json:"verb"`
	Pod       schema.PodKey         `json:"pod"`
	UID       types.UID             `json:"uid"`       // of the pod; a pod of another uid is another pod
	Container string                `json:"container"` // a name of the pod's spec; init containers too
	Log       *corev1.PodLogOptions `json:"log,omitempty"`
	Exec      *ExecRequest          `json:"exec,omitempty"`
	Attach    *AttachRequest        `json:"attach,omitempty"`
	Forward   *ForwardRequest       `json:"forward,omitempty"` // of the pod, not of a container
	Archive   *ArchiveRequest       `json:"archive,omitempty"`
}

// An ExecRequest is a command to run in a container.
type ExecRequest struct {
	Command []string `json:"command"`
	TTY     bool     `json:"tty,omitempty"` // then there is no stderr of its own
	Stdin   bool     `json:"stdin,omitempty"`
	Stdout  bool     `json:"stdout,omitempty"`
	Stderr  bool     `json:"stderr,omitempty"`
}

// An AttachRequest says which of a process' streams are wanted. Whether it has a
// terminal is the container's matter; then there is no stderr of its own.
type AttachRequest struct {
	Stdin  bool `json:"stdin,omitempty"`
	Stdout bool `json:"stdout,omitempty"`
	Stderr bool `json:"stderr,omitempty"`
}

// A ForwardRequest names a port of the pod's own loopback address.
type ForwardRequest struct {
	Port uint16 `json:"port"`
}

// An ArchiveRequest names files of a container.
type ArchiveRequest struct {
	Path string `json:"path"` // from the container's root; its links lead nowhere else
	// Write: take a tar from stdin. Else the tar of what is at Path is sent.
	Write bool `json:"write,omitempty"`
	// Base is the name that what is written gets when Path is a directory.
	Base string `json:"base,omitempty"`
	// NoPreserve: owner and mode are not taken from the tar.
	NoPreserve bool `json:"noPreserve,omitempty"`
}

// A StreamResult is how a command, or the writing of files, ended.
type StreamResult struct {
	ExitCode int    `json:"exitCode"`
	Error    string `json:"error,omitempty"` // why it could not be run; "": it ran and exited with ExitCode
	Class    string `json:"class,omitempty"` // of Error, as in StreamError
}

// A TermSize is a terminal's size in characters.
type TermSize struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// A StreamError is why a stream could not be opened or broke off, as the other
// side worded it: Text is for people and carries no class.
type StreamError struct {
	Text  string
	Class error // one of schema's; nil: a bug of the other side
}

// Error is the text alone.
func (e *StreamError) Error() string { return e.Text }

// Unwrap is the class.
func (e *StreamError) Unwrap() error { return e.Class }

// StreamErrorf makes an error that arrives at the other side of a stream with
// its class and without it in the text.
func StreamErrorf(class error, format string, args ...any) error {
	return &StreamError{Text: fmt.Sprintf(format, args...), Class: class}
}

// errorClasses are the names of classes on the wire.
var errorClasses = []struct {
	name  string
	class error
}{
	{"refused", schema.ErrRefused},
	{"unavailable", schema.ErrUnavailable},
	{"conflict", schema.ErrConflict},
	{"notfound", schema.ErrNotFound},
}

// ErrorClass names the class of an error, as streams carry it; "" for none.
func ErrorClass(err error) string {
	for _, c := range errorClasses {
		if errors.Is(err, c.class) {
			return c.name
		}
	}
	return ""
}

// ClassNamed is the class that ErrorClass gave a name; nil for none.
func ClassNamed(name string) error {
	for _, c := range errorClasses {
		if c.name == name {
			return c.class
		}
	}
	return nil
}
