package kv

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nuid"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// The node protocol, spoken in the account NODES between agents and the gateway.
//
//	subject                      from     content
//	pawl.up.<node>.sync          agent    nothing; answered with the whole Set
//	pawl.up.<node>.pods          agent    pods' reports; answered once they are stored
//	pawl.up.<node>.node          agent    the node itself, also its heartbeat; answered
//	                                      with the generation the agent should be at
//	pawl.down.<node>.assign      gateway  a Delta
//	pawl.up.<node>.events        agent    Events about its pods and itself; answered at once,
//	                                      and not kept for ever: they are news, not state
//	pawl.up.<node>.usage         agent    a NodeUsage; answered at once, and kept for a minute
//	pawl.up.<node>.token         agent    a TokenRequest; answered with the Token
//	_INBOX.<node>.>              gateway  answers
//	pawl.down.<node>.stream.<id> gateway  frames of a stream (streamframe.go); the first opens it
//	pawl.up.<node>.stream.<id>   agent    frames of that stream
//
// But for frames of streams, content is JSON. What goes up is one message of at most MaxMessage bytes.
// What goes down is cut into frames, so that it fits through a server with
// default settings; agents trust the gateway, and the gateway puts nothing
// together that a node has cut. Headers are neither sent nor looked at.
//
// The door listens to the requests, which have four tokens, and not to streams:
// each stream has a subscription of its own for as long as it is open, so that
// what a node sends elsewhere has no listener and ends at the server.

// MaxMessage is the largest message an agent may send, in bytes: below the
// 1 MiB that a NATS server takes by default.
const MaxMessage = 1000 << 10

const (
	// frameSize is how much content one frame carries, in bytes.
	frameSize = 512 << 10
	// maxContent bounds what an agent puts together from frames, in bytes.
	maxContent = 256 << 20
	maxFrames  = maxContent/frameSize + 1

	frameVersion = "pawl1"
	// frameHeaderMost is longer than any frame's first line, in bytes.
	frameHeaderMost = 80
)

// A Verb is what an agent asks for: the last token of the subject.
type Verb string

// The verbs.
const (
	VerbSync   Verb = "sync"
	VerbPods   Verb = "pods"
	VerbNode   Verb = "node"
	VerbEvents Verb = "events"
	VerbUsage  Verb = "usage"
	VerbToken  Verb = "token"
)

func upSubject(n schema.NodeName, v Verb) string { return "pawl.up." + string(n) + "." + string(v) }
func downSubject(n schema.NodeName) string       { return "pawl.down." + string(n) + ".assign" }
func inboxPrefix(n schema.NodeName) string       { return "_INBOX." + string(n) + "." }

// parseUpSubject returns who speaks, which the server has checked, and the verb.
func parseUpSubject(subject string) (schema.NodeName, Verb, error) {
	t := strings.Split(subject, ".")
	if len(t) != 4 || t[0] != "pawl" || t[1] != "up" {
		return "", "", fmt.Errorf("subject %q: want pawl.up.<node>.<verb>: %w", subject, schema.ErrRefused)
	}
	n := schema.NodeName(t[2])
	if err := n.Validate(); err != nil {
		return "", "", err
	}
	switch v := Verb(t[3]); v {
	case VerbSync, VerbPods, VerbNode, VerbEvents, VerbUsage, VerbToken:
		return n, v, nil
	}
	return "", "", fmt.Errorf("subject %q: no such verb: %w", subject, schema.ErrRefused)
}

// A Generation says which state of its set a node has. Number counts for one
// node within one run of the gateway, which Epoch names; generations of
// different epochs cannot be compared.
type Generation struct {
	Epoch  string `json:"epoch"`
	Number uint64 `json:"number"`
}

// Contents is pods of a node and the objects that they use.
type Contents struct {
	Assignments []schema.Assignment `json:"assignments,omitempty"`
	ConfigMaps  []corev1.ConfigMap  `json:"configMaps,omitempty"`
	Secrets     []corev1.Secret     `json:"secrets,omitempty"` // in the clear
}

// A Set is everything there is for a node.
type Set struct {
	Generation Generation `json:"generation"`
	Contents
}

// A Delta is what changed for a node since Previous. What Remove names comes
// out before Contents are put in.
type Delta struct {
	Generation Generation `json:"generation"`
	Previous   Generation `json:"previous"`
	Contents
	Remove []schema.ObjectKey `json:"remove,omitempty"`
}

// An Answer is what the gateway says to a request.
type Answer struct {
	Error      string        `json:"error,omitempty"`
	Class      string        `json:"class,omitempty"`      // of the error: refused, unavailable, conflict
	Generation *Generation   `json:"generation,omitempty"` // the node should be at
	Set        *Set          `json:"set,omitempty"`        // to sync
	Token      *schema.Token `json:"token,omitempty"`      // to token
}

// AnswerError makes the answer that lets err arrive at the agent with its class.
func AnswerError(err error) Answer {
	a := Answer{Error: err.Error(), Class: "unavailable"}
	switch {
	case errors.Is(err, schema.ErrRefused):
		a.Class = "refused"
	case errors.Is(err, schema.ErrConflict):
		a.Class = "conflict"
	}
	return a
}

// err is the error that the gateway answered with; nil: none.
func (a Answer) err() error {
	if a.Error == "" {
		return nil
	}
	switch a.Class {
	case "refused":
		return fmt.Errorf("gateway: %s: %w", a.Error, schema.ErrRefused)
	case "conflict":
		return fmt.Errorf("gateway: %s: %w", a.Error, schema.ErrConflict)
	default:
		return fmt.Errorf("gateway: %s: %w", a.Error, schema.ErrUnavailable)
	}
}

// DecodePods reads the content of a pods request.
func DecodePods(data []byte) ([]schema.PodReport, error) {
	if err := dense(data); err != nil {
		return nil, fmt.Errorf("reports of pods: %w", err)
	}
	var reports []schema.PodReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("reports of pods: %w: %w", err, schema.ErrRefused)
	}
	return reports, nil
}

// DecodeNode reads the content of a node request.
func DecodeNode(data []byte) (*corev1.Node, error) {
	if err := dense(data); err != nil {
		return nil, fmt.Errorf("report of a node: %w", err)
	}
	n := new(corev1.Node)
	if err := json.Unmarshal(data, n); err != nil {
		return nil, fmt.Errorf("report of a node: %w: %w", err, schema.ErrRefused)
	}
	return n, nil
}

// DecodeEvents reads the content of an events request.
func DecodeEvents(data []byte) ([]corev1.Event, error) {
	if err := dense(data); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	var events []corev1.Event
	if err := json.Unmarshal(data, &events); err != nil {
		return nil, fmt.Errorf("events: %w: %w", err, schema.ErrRefused)
	}
	return events, nil
}

// DecodeUsage reads the content of a usage request.
func DecodeUsage(data []byte) (*schema.NodeUsage, error) {
	if err := dense(data); err != nil {
		return nil, fmt.Errorf("usage of a node: %w", err)
	}
	u := new(schema.NodeUsage)
	if err := json.Unmarshal(data, u); err != nil {
		return nil, fmt.Errorf("usage of a node: %w: %w", err, schema.ErrRefused)
	}
	return u, nil
}

const (
	// sparseAllowance is how many elements a message may have whatever its length.
	sparseAllowance = 4096
	// sparseBytes is how many bytes an element must have beyond that, on average.
	sparseBytes = 12
)

// dense refuses JSON of many tiny elements. A container written as "1," takes
// hundreds of bytes once it is decoded, though the decoder then refuses it: a
// message of 1 MB could take half a gigabyte.
func dense(data []byte) error {
	elements := 0
	for _, c := range data {
		switch c {
		case ',', '{', '[':
			elements++
		}
	}
	if elements > sparseAllowance+len(data)/sparseBytes {
		return fmt.Errorf("%d elements in %d bytes: %w", elements, len(data), schema.ErrRefused)
	}
	return nil
}

// frames cuts content into messages: a line that names the content and says
// which part of how many this is, then the part.
func frames(content []byte) [][]byte {
	n := max(1, (len(content)+frameSize-1)/frameSize)
	id := nuid.Next()
	out := make([][]byte, n)
	for i := range n {
		part := content[i*frameSize : min((i+1)*frameSize, len(content))]
		b := make([]byte, 0, frameHeaderMost+len(part))
		b = fmt.Appendf(b, "%s %s %d %d\n", frameVersion, id, i, n)
		out[i] = append(b, part...)
	}
	return out
}

// An assembler puts frames together. It holds one unfinished content at a time:
// they come in order, so that the first frame of the next one means that the
// rest of the last one was lost.
type assembler struct {
	id    string
	next  int
	count int
	parts []byte
}

// errFrameLost: frames were lost, and with them what they carried.
var errFrameLost = errors.New("part of a message was lost")

// add takes one frame and returns the content that it completes, else nil. The
// error is errFrameLost, or one that wraps schema.ErrRefused for what is no frame.
func (a *assembler) add(message []byte) ([]byte, error) {
	id, i, n, part, err := parseFrame(message)
	if err != nil {
		*a = assembler{}
		return nil, err
	}
	lost := a.count > 0 && (id != a.id || i != a.next || n != a.count)
	if lost || a.count == 0 {
		*a = assembler{}
		if i != 0 {
			return nil, errFrameLost
		}
		a.id, a.count = id, n
	}
	if n == 1 {
		*a = assembler{}
		if lost {
			return part, errFrameLost
		}
		return part, nil
	}
	a.parts = append(a.parts, part...)
	a.next++
	var content []byte
	if a.next == a.count {
		content = a.parts
		*a = assembler{}
	}
	if lost {
		return content, errFrameLost
	}
	return content, nil
}

func parseFrame(message []byte) (id string, i, n int, part []byte, err error) {
	refuse := func(why string) error {
		return fmt.Errorf("frame of the node protocol: %s: %w", why, schema.ErrRefused)
	}
	end := bytes.IndexByte(message[:min(len(message), frameHeaderMost)], '\n')
	if end < 0 {
		return "", 0, 0, nil, refuse("no first line")
	}
	f := strings.Split(string(message[:end]), " ")
	if len(f) != 4 || f[0] != frameVersion || f[1] == "" {
		return "", 0, 0, nil, refuse("want " + frameVersion + " <id> <part> <parts>")
	}
	i, err1 := strconv.Atoi(f[2])
	n, err2 := strconv.Atoi(f[3])
	if err1 != nil || err2 != nil || n < 1 || n > maxFrames || i < 0 || i >= n {
		return "", 0, 0, nil, refuse("part out of range")
	}
	part = message[end+1:]
	if len(part) > frameSize {
		return "", 0, 0, nil, refuse("too large")
	}
	return f[1], i, n, part, nil
}
