package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
)

// Bytes is a number of bytes, for people: "12.3 MiB".
type Bytes int64

func (b Bytes) String() string {
	if b < 1<<10 {
		return strconv.FormatInt(int64(b), 10) + " B"
	}
	n, unit := float64(b), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		if n /= 1 << 10; n < 1023.95 {
			break
		}
	}
	return strings.TrimSuffix(strconv.FormatFloat(n, 'f', 1, 64), ".0") + " " + unit
}

// PullProgress says how far a pull is.
type PullProgress struct {
	Have, Total Bytes // Total 0: not known yet
	Waiting     bool  // for its turn: so many are pulled at once already
}

func (p PullProgress) String() string {
	switch {
	case p.Waiting:
		return "pulling: waiting for other images"
	case p.Total == 0:
		return "pulling: asking the registry"
	case p.Have >= p.Total:
		return fmt.Sprintf("pulling: unpacking %v", p.Total)
	}
	return fmt.Sprintf("pulling: %v of %v", p.Have, p.Total)
}

// ImageCollector is what a Runtime may have besides, to keep images from filling
// the disk.
type ImageCollector interface {
	// CollectImages removes images that nothing uses, the longest unused first,
	// when the disk they lie on is fuller than it should be. keep names images as
	// pods do, which they wait with.
	CollectImages(ctx context.Context, keep []string) (ImageCollection, error)
}

// An ImageCollection is what a look at the images' disk came to.
type ImageCollection struct {
	Capacity, Used Bytes    // of the disk, afterwards
	High           int      // per cent of the capacity above which images are removed
	Wanted         Bytes    // to be freed; 0: there was no need
	Freed          Bytes    // of those
	Removed        []string // images
}

// Short says whether not enough could be freed.
func (c ImageCollection) Short() bool { return c.Freed < c.Wanted }

// Full says whether the disk is still fuller than it should be.
func (c ImageCollection) Full() bool {
	return c.Capacity > 0 && c.Used*100 >= c.Capacity*Bytes(c.High)
}

// pulling keeps how far a pull is.
func (w *worker) pulling(act pod.PullImage, p PullProgress) {
	note := w.known.Containers[act.Container]
	if note.Image.Attempt == act.Attempt && note.Image.Pulling {
		note.Image.Progress = p.String()
		w.known.Containers[act.Container] = note
	}
}

// tellMissingSecrets tells of imagePullSecrets that are not here. The pull goes
// ahead without them, as it may do.
func (w *worker) tellMissingSecrets(p *corev1.Pod) {
	var missing []string
	for _, r := range p.Spec.ImagePullSecrets {
		if _, ok := w.a.objects.Secret(p.Namespace, r.Name); !ok {
			missing = append(missing, r.Name)
		}
	}
	if len(missing) > 0 {
		w.warn("", "FailedToRetrieveImagePullSecret", fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", ")))
	}
}

// notBefore is a failure that is not tried again before its error allows it: a
// registry may ask to be left alone for a while.
func notBefore(f pod.Failure, err error) pod.Failure {
	var asks interface{ RetryAfter() time.Duration }
	if errors.As(err, &asks) {
		if at := f.At.Add(jittered(asks.RetryAfter())); at.After(f.RetryAt) {
			f.RetryAt = at
		}
	}
	return f
}
