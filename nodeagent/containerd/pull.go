package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

const (
	// pullWithin bounds one pull.
	pullWithin = 30 * time.Minute
	// leaseFor is how long containerd keeps what a killed or failed pull fetched.
	leaseFor = pullWithin + 5*time.Minute
	// layersAtOnce bounds the downloads of one pull.
	layersAtOnce = 3
	progressEach = 5 * time.Second
)

// quiet keeps the library from writing to standard error by its own logger.
var quiet = func() *log.Entry {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return logrus.NewEntry(l)
}()

type pullResult struct {
	info   *imageInfo
	pulled bool
}

// pullOnce lets callers who ask for the same at one time share one pull. Those
// with other credentials do not share: what one may see another may not.
func (s *imageStore) pullOnce(ctx context.Context, name string, q nodeagent.ImageRequest) (*imageInfo, bool, error) {
	s.pulls.Add(1)
	defer s.pulls.Done()
	ch := s.flight.DoChan(name+"\x00"+fingerprint(q.Auth), func() (any, error) {
		ctx, cancel := context.WithTimeout(s.life, pullWithin)
		defer cancel()
		info, pulled, err := s.pull(ctx, name, q.Auth)
		return pullResult{info, pulled}, err
	})
	select {
	case answer := <-ch:
		result, _ := answer.Val.(pullResult)
		return result.info, result.pulled, answer.Err
	case <-ctx.Done():
		s.pulls.Go(func() { <-ch }) // it goes on, and close waits for it
		return nil, false, unavailable("pull", ctx.Err())
	}
}

// fingerprint tells credentials apart.
func fingerprint(auth []corev1.Secret) string {
	h := sha256.New()
	for _, s := range auth {
		for _, k := range slices.Sorted(keysOf(s.Data)) {
			fmt.Fprintf(h, "%s/%s %s %d\n", s.Namespace, s.Name, k, len(s.Data[k]))
			h.Write(s.Data[k])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (s *imageStore) pull(ctx context.Context, name string, auth []corev1.Secret) (*imageInfo, bool, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, false, unavailable("wait for other pulls", ctx.Err())
	}
	ctx = log.WithLogger(ctx, quiet)
	var denied error
	for _, c := range credentialsFor(name, auth) {
		info, pulled, err := s.pullAs(ctx, name, c)
		if err == nil || !accessDenied(err) {
			return info, pulled, classify(err)
		}
		denied = err
	}
	return nil, false, classify(denied)
}

// pullAs asks what the name stands for now, and fetches it unless it is here.
func (s *imageStore) pullAs(ctx context.Context, name string, c credentials) (*imageInfo, bool, error) {
	resolver := s.resolver(c)
	_, desc, err := resolver.Resolve(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if here, err := s.client.ImageService().Get(ctx, name); err == nil && here.Target.Digest == desc.Digest {
		info, err := s.info(ctx, here)
		if err == nil || !errors.Is(err, schema.ErrNotFound) {
			return info, false, err
		}
	}
	info, err := s.fetch(ctx, name, resolver)
	return info, err == nil, err
}

// fetch gets an image and unpacks it for this platform. A lease keeps containerd
// from collecting what is not yet referred to; after a failure that time may
// heal the lease stays a while, so that the next try goes on.
func (s *imageStore) fetch(ctx context.Context, name string, resolver remotes.Resolver) (_ *imageInfo, err error) {
	began := time.Now()
	lease, err := s.client.LeasesService().Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseFor))
	if err != nil {
		return nil, unavailable("take a lease", err)
	}
	ctx = leases.WithLease(ctx, lease.ID)
	defer func() {
		if err == nil || !errors.Is(classify(err), schema.ErrUnavailable) {
			err = errors.Join(err, s.client.LeasesService().Delete(context.WithoutCancel(ctx), lease))
		}
	}()
	done := make(chan struct{})
	defer close(done)
	s.pulls.Go(func() { s.tell(ctx, name, began, done) })
	img, err := s.client.Pull(ctx, name,
		client.WithResolver(resolver), client.WithPlatformMatcher(s.platform),
		client.WithPullUnpack, client.WithPullSnapshotter(s.snapshotter),
		client.WithMaxConcurrentDownloads(layersAtOnce))
	if err != nil {
		return nil, errors.Join(err, s.dropSpoilt(ctx, err))
	}
	info, err := s.info(ctx, img.Metadata())
	if err != nil {
		return nil, err
	}
	s.log.Debug("image pulled", "image", name, "digest", info.target, "bytes", info.bytes, "took", time.Since(began).Round(time.Millisecond))
	return info, nil
}

// dropSpoilt drops a download whose content is not what its digest promised.
// The library would go on from it the next time, and fail for ever.
func (s *imageStore) dropSpoilt(ctx context.Context, cause error) error {
	if !errdefs.IsFailedPrecondition(cause) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWithin)
	defer cancel()
	under, err := s.client.ContentStore().ListStatuses(ctx)
	if err != nil {
		return unavailable("list the downloads", err)
	}
	for _, u := range under {
		if !strings.Contains(cause.Error(), u.Ref) {
			continue
		}
		if err := s.client.ContentStore().Abort(ctx, u.Ref); err != nil && !gone(err) {
			return unavailable("drop a spoilt download", err)
		}
	}
	return nil
}

// tell logs the progress of a pull that takes long.
func (s *imageStore) tell(ctx context.Context, name string, began time.Time, done <-chan struct{}) {
	tick := time.NewTicker(progressEach)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		under, err := s.client.ContentStore().ListStatuses(ctx)
		if err != nil {
			continue
		}
		var have, total int64
		for _, u := range under {
			have, total = have+u.Offset, total+u.Total
		}
		s.log.Debug("pulling", "image", name, "for", time.Since(began).Round(time.Second), "downloads of this node", len(under), "bytes", have, "of", total)
	}
}

// accessDenied says whether other credentials might help.
func accessDenied(err error) bool {
	var unexpected remoteserrors.ErrUnexpectedStatus
	return errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) ||
		errors.As(err, &unexpected) && (unexpected.StatusCode == http.StatusUnauthorized || unexpected.StatusCode == http.StatusForbidden)
}

// classify says who acts on a pull that failed, in one line.
func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, schema.ErrRefused), errors.Is(err, schema.ErrNotFound), errors.Is(err, schema.ErrUnavailable):
		return err
	case accessDenied(err):
		return fmt.Errorf("pull access denied: the repository does not exist or needs (other) credentials: %s: %w", oneLine(err), schema.ErrNotFound)
	case unreachable(err):
		return unavailable("pull", err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("the registry does not have it: %s: %w", oneLine(err), schema.ErrNotFound)
	case errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err), errdefs.IsNotImplemented(err), errors.Is(err, digest.ErrDigestInvalidFormat):
		return fmt.Errorf("its content cannot be used: %s: %w", oneLine(err), schema.ErrRefused)
	default:
		return unavailable("pull", err)
	}
}

// unreachable says whether somebody did not answer: the registry or containerd.
func unreachable(err error) bool {
	var netErr net.Error
	var urlErr *url.Error
	var unexpected remoteserrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &netErr), errors.As(err, &urlErr), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errdefs.IsUnavailable(err), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err):
		return true
	case errors.As(err, &unexpected):
		return unexpected.StatusCode >= 500 || unexpected.StatusCode == http.StatusTooManyRequests
	}
	return status.Code(err) == codes.Unavailable
}

// maxMessage bounds an error's text as it stands in a status.
const maxMessage = 1024

// oneLine is an error for people: without line breaks, and bounded.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxMessage {
		text = text[:maxMessage] + " …"
	}
	return text
}
