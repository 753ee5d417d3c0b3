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
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

const (
	// pullWithin bounds one pull.
	pullWithin = 30 * time.Minute
	// layersAtOnce bounds the downloads of one pull.
	layersAtOnce = 3
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
	key := name + "\x00" + fingerprint(q.Auth)
	p := s.watchPull(key)
	defer s.unwatchPull(key, p)
	ch := s.flight.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(s.life, pullWithin)
		defer cancel()
		going := s.watchPull(key) // for as long as it goes on, whoever leaves
		defer s.unwatchPull(key, going)
		info, pulled, err := s.pull(ctx, name, q.Auth, going)
		return pullResult{info, pulled}, err
	})
	answer, err := p.await(ctx, ch, q.Progress)
	if err != nil {
		s.pulls.Go(func() { <-ch }) // it goes on, and close waits for it
		return nil, false, unavailable("pull", err)
	}
	result, _ := answer.Val.(pullResult)
	return result.info, result.pulled, answer.Err
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

func (s *imageStore) pull(ctx context.Context, name string, auth []corev1.Secret, p *pulling) (*imageInfo, bool, error) {
	p.waiting.Store(true)
	release, err := s.turn(ctx, name)
	if err != nil {
		return nil, false, err
	}
	defer release()
	p.waiting.Store(false)
	ctx = log.WithLogger(ctx, quiet)
	list, faults := credentialsFor(name, auth)
	var denied error
	for _, c := range list {
		info, pulled, err := s.pullAs(ctx, name, c, p)
		if err == nil || !accessDenied(err) {
			return info, pulled, secretless(classify(err), list)
		}
		denied = err
	}
	return nil, false, secretless(withFaults(classify(denied), faults), list)
}

// turn waits for other pulls: of the same image, and of so many others.
func (s *imageStore) turn(ctx context.Context, name string) (release func(), err error) {
	unlock, err := s.turns.lock(ctx, types.UID(name))
	if err != nil {
		return nil, unavailable("wait for another pull of the image", ctx.Err())
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots; unlock() }, nil
	case <-ctx.Done():
		unlock()
		return nil, unavailable("wait for other pulls", ctx.Err())
	}
}

// pullAs asks what the name stands for now, and fetches it unless it is here.
func (s *imageStore) pullAs(ctx context.Context, name string, c credentials, p *pulling) (*imageInfo, bool, error) {
	resolver := s.resolver(c)
	_, desc, err := resolver.Resolve(ctx, name)
	if err != nil {
		return nil, false, err
	}
	here, err := s.client.ImageService().Get(ctx, name)
	if err == nil && here.Target.Digest == desc.Digest {
		info, err := s.info(ctx, here)
		if err == nil || !errors.Is(err, schema.ErrNotFound) {
			return info, false, err
		}
	}
	info, err := s.fetch(ctx, name, desc, resolver, p)
	if cannotResume(err) {
		info, err = s.fetch(ctx, name, desc, resolver, p) // from the beginning
	}
	return info, err == nil, err
}

// fetch gets an image and unpacks it for this platform, or leaves everything as
// it was: an image that cannot be used never takes a name.
func (s *imageStore) fetch(ctx context.Context, name string, desc ocispec.Descriptor, resolver remotes.Resolver, p *pulling) (_ *imageInfo, err error) {
	began := time.Now()
	parts := &admission{room: func() int64 { return s.disk.room(ctx) }}
	if err := parts.admit(desc); err != nil {
		return nil, err
	}
	lease, err := s.lease(ctx, name)
	if err != nil {
		return nil, err
	}
	ctx = leases.WithLease(ctx, lease.ID)
	defer func() { err = errors.Join(err, s.endLease(ctx, lease, err)) }()
	before, err := s.client.ImageService().Get(ctx, name)
	if err != nil && !gone(err) {
		return nil, unavailable("look up the image", err)
	}
	p.begin(s.client.ContentStore(), parts)
	img, err := s.client.Pull(ctx, name,
		client.WithResolver(resolver), client.WithPlatformMatcher(s.platform), client.WithImageHandlerWrapper(parts.watch),
		client.WithPullUnpack, client.WithPullSnapshotter(s.snapshotter), client.WithPullLabels(s.usedNow(before.Labels)),
		client.WithMaxConcurrentDownloads(layersAtOnce))
	if err != nil {
		return nil, errors.Join(s.explain(ctx, desc, err), s.dropSpoilt(ctx, parts, err))
	}
	info, err := s.info(ctx, img.Metadata())
	if err != nil {
		return nil, errors.Join(err, s.takeBack(ctx, name, before))
	}
	s.log.Debug("image pulled", "image", name, "digest", info.target, "bytes", info.bytes, "took", time.Since(began).Round(time.Millisecond))
	return info, nil
}

// takeBack gives a name back to the image that had it before.
func (s *imageStore) takeBack(ctx context.Context, name string, before images.Image) (err error) {
	if before.Name == "" {
		err = s.client.ImageService().Delete(ctx, name)
	} else {
		_, err = s.client.ImageService().Update(ctx, before)
	}
	if err != nil && !gone(err) {
		return unavailable("take back an image that cannot be used", err)
	}
	return nil
}

// explain says what a person can do about an image that has nothing for this
// machine.
func (s *imageStore) explain(ctx context.Context, desc ocispec.Descriptor, err error) error {
	has := platformsIn(ctx, s.client.ContentStore(), desc)
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no match for platform") || len(has) == 0 {
		return err
	}
	return fmt.Errorf("it has no image for %s, only for %s: %w", platforms.Format(platforms.DefaultSpec()), strings.Join(has, ", "), schema.ErrNotFound)
}

// cannotResume says whether a registry does not let a download go on where an
// earlier one stood. Some know no ranges.
func cannotResume(err error) bool {
	var unexpected remoteserrors.ErrUnexpectedStatus
	return errors.As(err, &unexpected) && unexpected.StatusCode == http.StatusRequestedRangeNotSatisfiable ||
		err != nil && (strings.Contains(err.Error(), "discard to offset") || strings.Contains(err.Error(), "unhandled content range"))
}

// dropSpoilt drops a download whose content is not what its digest promised, or
// that cannot go on. The library would go on from it the next time, and fail for
// ever. Where the error does not say which one it is, all of the image go.
func (s *imageStore) dropSpoilt(ctx context.Context, parts *admission, cause error) error {
	if !errdefs.IsFailedPrecondition(cause) && !cannotResume(cause) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupWithin)
	defer cancel()
	under, err := s.client.ContentStore().ListStatuses(ctx)
	if err != nil {
		return unavailable("list the downloads", err)
	}
	ours := map[string]bool{}
	for _, d := range parts.known() {
		ours[remotes.MakeRefKey(ctx, d)] = true
	}
	under = slices.DeleteFunc(under, func(u content.Status) bool { return !ours[u.Ref] })
	if i := slices.IndexFunc(under, func(u content.Status) bool { return named(cause, u.Ref) }); i >= 0 {
		under = slices.DeleteFunc(under, func(u content.Status) bool { return !named(cause, u.Ref) })
	}
	for _, u := range under {
		if err := s.client.ContentStore().Abort(ctx, u.Ref); err != nil && !gone(err) {
			return unavailable("drop a spoilt download", err)
		}
	}
	return nil
}

// named says whether an error names what a download is to become.
func named(err error, ref string) bool {
	_, id, _ := strings.Cut(ref, "-")
	return id != "" && strings.Contains(err.Error(), id)
}

// accessDenied says whether other credentials might help.
func accessDenied(err error) bool {
	var unexpected remoteserrors.ErrUnexpectedStatus
	return errors.Is(err, docker.ErrInvalidAuthorization) || errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) ||
		errors.As(err, &unexpected) && (unexpected.StatusCode == http.StatusUnauthorized || unexpected.StatusCode == http.StatusForbidden)
}

// classify says who acts on a pull that failed, in one line.
func classify(err error) error {
	var busy *busyError
	var unexpected remoteserrors.ErrUnexpectedStatus
	switch {
	case err == nil:
		return nil
	case errors.As(err, &busy):
		return busy
	case errors.Is(err, schema.ErrRefused):
		return flat("", err, schema.ErrRefused)
	case errors.Is(err, schema.ErrNotFound):
		return flat("", err, schema.ErrNotFound)
	case errors.Is(err, schema.ErrUnavailable):
		return flat("", err, schema.ErrUnavailable)
	case accessDenied(err):
		return flat("pull access denied: the repository does not exist or needs (other) credentials: ", err, schema.ErrNotFound)
	case errors.As(err, &unexpected) && unexpected.StatusCode >= 500:
		return flat("the registry is in trouble: ", err, schema.ErrUnavailable)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return flat("the registry broke off: ", err, schema.ErrUnavailable)
	case unreachable(err):
		return unavailable("pull", err)
	case errdefs.IsNotFound(err):
		return flat("the registry does not have it: ", err, schema.ErrNotFound)
	case errdefs.IsFailedPrecondition(err):
		return flat("what the registry sends is not what the digest promises: ", err, schema.ErrRefused)
	case errdefs.IsInvalidArgument(err), errdefs.IsNotImplemented(err), errors.Is(err, digest.ErrDigestInvalidFormat), errors.Is(err, digest.ErrDigestInvalidLength), errors.Is(err, digest.ErrDigestUnsupported):
		return flat("its content cannot be used: ", err, schema.ErrRefused)
	default:
		return unavailable("pull", err)
	}
}

// flat is an error in one line, of which only the class is left. Its text ends
// with the class as if it were wrapped.
func flat(what string, err, class error) error {
	text := what + strings.TrimSuffix(oneLine(err), ": "+class.Error())
	return fmt.Errorf("%s: %w", text, class)
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

// urlSecrets is what may stand in a URL that is nobody's business: a user with a
// password, and the query, which often is a signature that opens a store.
var urlSecrets = regexp.MustCompile(`(://)[^\s/@"]*@|([^\s"])\?[^\s"]+`)

// oneLine is an error for people: in one line, bounded, without what opens doors.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	text = urlSecrets.ReplaceAllString(text, "$1$2")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + " …"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}
