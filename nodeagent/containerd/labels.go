package containerd

import (
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
)

// Labels on containerd's container records: all that must be known of a
// container without its task, by whoever runs after us. Only this package
// writes them; nothing of an image or a manifest's labels goes here.
//
//	set when the container is made       instance … created
//	set by Signal                        stop-requested
//	set by Start when it failed          start-error, finished
//	set after the process ended          exit-code, finished, started, oom-killed
const (
	labelInstance      = "pawl.dev/instance"
	labelUID           = "pawl.dev/pod-uid"
	labelNamespace     = "pawl.dev/pod-namespace"
	labelPod           = "pawl.dev/pod"
	labelContainer     = "pawl.dev/container"
	labelAttempt       = "pawl.dev/attempt"
	labelBackoff       = "pawl.dev/backoff"
	labelSandbox       = "pawl.dev/sandbox" // when it was made: which of the pod's it is
	labelInit          = "pawl.dev/init"
	labelImage         = "pawl.dev/image"
	labelImageID       = "pawl.dev/image-id"
	labelStopSignal    = "pawl.dev/stop-signal"
	labelLog           = "pawl.dev/log"
	labelTTY           = "pawl.dev/tty"
	labelStdin         = "pawl.dev/stdin"
	labelStopRequested = "pawl.dev/stop-requested"
	labelStartError    = "pawl.dev/start-error"
	labelStarted       = "pawl.dev/started"
	labelFinished      = "pawl.dev/finished"
	labelExitCode      = "pawl.dev/exit-code"
	labelOOMKilled     = "pawl.dev/oom-killed"
)

// maxLabel is what containerd accepts of a label: its key and value together.
const maxLabel = 4096

// fitting cuts a value to what fits into a label.
func fitting(key, value string) string {
	if most := maxLabel - len(key); len(value) > most {
		return value[:most]
	}
	return value
}

// A record is a container of ours as its record in containerd tells. What can
// change in it (the labels set later) is guarded by Runtime.mu.
type record struct {
	pod.Container // State and times are filled in when it is looked at
	uid           types.UID
	key           schema.PodKey
	stopSignal    string
	tty           bool
	stdin         string // stdinOpen, stdinOnce, or "": it has no standard input
	ended         bool   // its exit is known, and does not change any more
	settled       bool   // and stands in its labels, so that its task is not needed
}

// recordOf reads a record; false when it is not ours.
func recordOf(c containers.Container, instance string) (*record, bool) {
	l := c.Labels
	if l[labelInstance] != instance || l[labelUID] == "" {
		return nil, false
	}
	r := &record{
		Container: pod.Container{
			Name:          l[labelContainer],
			Attempt:       number(l[labelAttempt]),
			ID:            c.ID,
			Init:          l[labelInit] == "true",
			Image:         l[labelImage],
			ImageID:       l[labelImageID],
			CreatedAt:     c.CreatedAt,
			Sandbox:       moment(l[labelSandbox]),
			StartedAt:     moment(l[labelStarted]),
			FinishedAt:    moment(l[labelFinished]),
			ExitCode:      int32(number(l[labelExitCode])),
			OOMKilled:     l[labelOOMKilled] == "true",
			StopRequested: moment(l[labelStopRequested]),
			StartError:    l[labelStartError],
			LogPath:       l[labelLog],
			Backoff:       number(l[labelBackoff]),
		},
		uid:        types.UID(l[labelUID]),
		key:        schema.PodKey{Namespace: l[labelNamespace], Name: l[labelPod]},
		stopSignal: l[labelStopSignal],
		tty:        l[labelTTY] == "true",
		stdin:      l[labelStdin],
	}
	r.ended = l[labelExitCode] != ""
	r.settled = r.ended
	return r, true
}

// number reads a label we wrote; one that somebody else spoilt counts as 0.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// moment reads a time we wrote; zero when there is none.
func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
