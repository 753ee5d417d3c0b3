package containerd

import (
	"context"
	"time"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// labelMark is the label that keeps a mark.
func labelMark(m pod.Mark) string { return "pawl.dev/" + string(m) }

// marks are those of a container besides StopRequested.
var marks = [...]pod.Mark{pod.MarkPostStarted, pod.MarkPreStopped, pod.MarkSignalled}

// readMarks takes up what the labels keep.
func readMarks(c *pod.Container, labels map[string]string) {
	c.MessageLog = labels[labelMessageLog] == "true"
	for _, m := range marks {
		c.Set(m, moment(labels[labelMark(m)]))
	}
}

// Mark keeps a moment of a container's life in its labels. When it was asked to
// stop is kept once: the grace period counts from there.
func (r *Runtime) Mark(ctx context.Context, id string, m pod.Mark, at time.Time) error {
	rec, unlock, err := r.lockRecord(ctx, id)
	if err != nil || rec == nil {
		return err
	}
	defer unlock()
	if m == pod.MarkStopRequested && !rec.StopRequested.IsZero() {
		return nil
	}
	err = r.setLabels(ctx, id, map[string]string{labelMark(m): stamp(at)}, func(rec *record) { rec.Set(m, at) })
	if gone(err) {
		return nil
	}
	return err
}
