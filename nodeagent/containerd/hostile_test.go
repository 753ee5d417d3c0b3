package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

type behaviour = func(w http.ResponseWriter, r *http.Request, next http.Handler)

func honest(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

// answered is what the honest registry would answer.
func answered(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	return rec
}

func pass(w http.ResponseWriter, rec *httptest.ResponseRecorder, body []byte) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
}

// manifestIs has every manifest be this one.
func manifestIs(mediaType string, manifest any) behaviour {
	body, ok := manifest.([]byte)
	if !ok {
		body, _ = json.Marshal(manifest)
	}
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !isManifest(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	}
}

func part(mediaType string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Size: size, Digest: digest.FromString(mediaType + fmt.Sprint(size))}
}

func indexWith(parts ...ocispec.Descriptor) ocispec.Index {
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: parts}
	x.SchemaVersion = 2
	return x
}

func manifestOf(config ocispec.Descriptor, layers ...ocispec.Descriptor) ocispec.Manifest {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return m
}

// A hostility is what a registry may do, and what becomes of it.
type hostility struct {
	do    behaviour
	class error
	says  string
}

func hostilities() map[string]hostility {
	layer, config := ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageConfig
	arm := part(ocispec.MediaTypeImageManifest, 500)
	arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	huge := part(ocispec.MediaTypeImageManifest, 3<<30)
	huge.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	abroad := part(layer, 100)
	abroad.URLs = []string{"http://169.254.169.254/latest/meta-data"}
	status := func(code int, retryAfter string) behaviour {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			http.Error(w, "no", code)
		}
	}
	return map[string]hostility{
		"truncated blob": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			if !isBlob(r) {
				pass(w, rec, rec.Body.Bytes())
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
			panic(http.ErrAbortHandler)
		}, schema.ErrUnavailable, ""},
		"short blob": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			body := rec.Body.Bytes()
			if isBlob(r) {
				body = body[:len(body)/2]
				rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			pass(w, rec, body)
		}, schema.ErrUnavailable, ""},
		"corrupt blob": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			body := rec.Body.Bytes()
			if isBlob(r) && len(body) > 0 {
				body[len(body)/2] ^= 0x55
			}
			pass(w, rec, body)
		}, schema.ErrRefused, "not what the digest promises"},
		"other manifest than promised": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			body := rec.Body.Bytes()
			if isManifest(r) && r.Method == http.MethodGet && len(body) > 0 {
				body = []byte(strings.Repeat(" ", len(body)))
			}
			pass(w, rec, body)
		}, schema.ErrRefused, "not what the digest promises"},
		"digest that is none": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			if isManifest(r) {
				rec.Header().Set("Docker-Content-Digest", "sha256:evil")
			}
			pass(w, rec, rec.Body.Bytes())
		}, schema.ErrRefused, "digest"},
		"a byte at a time": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answered(r, next)
			if !isBlob(r) {
				pass(w, rec, rec.Body.Bytes())
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
			for _, b := range rec.Body.Bytes() {
				if _, err := w.Write([]byte{b}); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				time.Sleep(20 * time.Millisecond)
			}
		}, schema.ErrUnavailable, "too slowly"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }, schema.ErrUnavailable, "does not answer within"},
		"silence after the first word": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !isBlob(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Length", "1000000")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, schema.ErrUnavailable, "too slowly"},
		"500":                  {status(http.StatusInternalServerError, ""), schema.ErrUnavailable, "the registry is in trouble"},
		"502":                  {status(http.StatusBadGateway, ""), schema.ErrUnavailable, "502 Bad Gateway"},
		"429":                  {status(http.StatusTooManyRequests, "1"), schema.ErrUnavailable, "asks not to be asked for 1s (429 Too Many Requests)"},
		"429 without a word":   {status(http.StatusTooManyRequests, ""), schema.ErrUnavailable, "too many requests (429"},
		"503 with Retry-After": {status(http.StatusServiceUnavailable, "1"), schema.ErrUnavailable, "asks not to be asked for 1s (503"},
		"redirect loop": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.Path+"?signature=TOPSECRET", http.StatusTemporaryRedirect)
		}, schema.ErrUnavailable, "stopped after 10 redirects"},
		"huge manifest": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !isManifest(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
			w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		}, schema.ErrRefused, "bytes"},
		"manifest without end": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if !isManifest(r) {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.(http.Flusher).Flush()
			for r.Method == http.MethodGet {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, schema.ErrRefused, "without end"},
		"index that names a huge manifest": {manifestIs(ocispec.MediaTypeImageIndex, indexWith(huge)), schema.ErrRefused, "3221225472 bytes"},
		"web page":                         {manifestIs("text/html", []byte("<html>please log in</html>")), schema.ErrRefused, `media type "text/html"`},
		"helm chart":                       {manifestIs(ocispec.MediaTypeImageManifest, manifestOf(part("application/vnd.cncf.helm.config.v1+json", 9))), schema.ErrRefused, "helm"},
		"unknown layer":                    {manifestIs(ocispec.MediaTypeImageManifest, manifestOf(part(config, 9), part("application/x-squashfs", 9))), schema.ErrRefused, "squashfs"},
		"layer of nothing":                 {manifestIs(ocispec.MediaTypeImageManifest, manifestOf(part(config, 9), part(layer, 0))), schema.ErrRefused, "0 bytes"},
		"layer elsewhere":                  {manifestIs(ocispec.MediaTypeImageManifest, manifestOf(part(config, 9), abroad)), schema.ErrRefused, "outside of the registry"},
		"layer larger than the disk":       {manifestIs(ocispec.MediaTypeImageManifest, manifestOf(part(config, 9), part(layer, 1<<50))), schema.ErrUnavailable, "1 PiB"},
		"not JSON":                         {manifestIs(ocispec.MediaTypeImageManifest, []byte("{{{")), schema.ErrUnavailable, ""},
		"other platform":                   {manifestIs(ocispec.MediaTypeImageIndex, indexWith(arm)), schema.ErrNotFound, "no image for linux/amd64, only for linux/arm64"},
	}
}

// imageCounts counts all that images are made of.
func (g *rig) imageCounts() map[string]int {
	g.tb.Helper()
	ctx := namespaces.WithNamespace(g.ctx, namespace)
	n := map[string]int{}
	count := func(what string, err error) {
		g.tb.Helper()
		if err != nil {
			g.tb.Fatalf("count %s: %v", what, err)
		}
	}
	count("content", g.rt.client.ContentStore().Walk(ctx, func(content.Info) error { n["content"]++; return nil }))
	under, err := g.rt.client.ContentStore().ListStatuses(ctx)
	count("downloads", err)
	n["downloads"] = len(under)
	count("snapshots", g.rt.client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, _ snapshots.Info) error { n["snapshots"]++; return nil }))
	held, err := g.rt.client.LeasesService().List(ctx)
	count("leases", err)
	n["leases"] = len(held)
	all, err := g.rt.client.ImageService().List(ctx)
	count("images", err)
	n["images"] = len(all)
	return n
}

// imagesAsBefore waits until there is as much of everything as before.
func (g *rig) imagesAsBefore(t *testing.T, before map[string]int) {
	t.Helper()
	var after map[string]int
	defer func() {
		if t.Failed() {
			t.Logf("before %v, after %v", before, after)
		}
	}()
	pollEach(t, 100*time.Millisecond, "as much of everything as before", func() bool {
		if err := g.rt.images.sweep(namespaces.WithNamespace(g.ctx, namespace)); err != nil {
			t.Fatal(err)
		}
		after = g.imageCounts()
		for what, n := range before {
			if after[what] > n {
				return false
			}
		}
		return true
	})
}

// hasty is a rig that waits for no registry: on a busy machine for no good one either.
func hasty(t *testing.T) *rig {
	g := newRig(t)
	g.shut()
	g.opts.pace = pace{answer: 1500 * time.Millisecond, window: 400 * time.Millisecond, enough: 4 << 10}
	g.open()
	return g
}

// Whatever a registry does, the pull ends soon, says why in one line that gives
// nothing away, leaves nothing that grows, and succeeds when the registry is good
// again.
func TestHostileRegistries(t *testing.T) {
	calm, hasty, reg := newRig(t), hasty(t), newWatchedRegistry(t)
	for name, h := range hostilities() {
		g := calm
		if h.says == "too slowly" || h.says == "does not answer within" {
			g = hasty
		}
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			img, err := random.Image(300_000, 2)
			if err != nil {
				t.Fatal(err)
			}
			reg.behave(honest)
			repository := "h/" + digest.FromString(name).Encoded()[:12] + ":1"
			if err := push(reg.URL, repository, img); err != nil {
				t.Fatal(err)
			}
			before := g.imageCounts()
			reg.behave(h.do)
			began := time.Now()
			for try := range 3 {
				_, err = g.pull(reg.host()+"/"+repository, corev1.PullAlways)
				if !errors.Is(err, h.class) || !strings.Contains(err.Error(), h.says) {
					t.Fatalf("try %d: %v, want %v that says %q", try, err, h.class, h.says)
				}
				if text := err.Error(); strings.ContainsAny(text, "\n\x1b") || strings.Contains(text, "TOPSECRET") || len(text) > 2000 {
					t.Errorf("the error is not fit for people: %q", text)
				}
			}
			t.Logf("after %v: %v", time.Since(began).Round(time.Millisecond), err)
			after := g.imageCounts()
			if after["leases"] > before["leases"]+1 || after["images"] != before["images"] {
				t.Errorf("before %v, after %v", before, after)
			}
			if !errors.Is(h.class, schema.ErrUnavailable) {
				g.imagesAsBefore(t, before)
			}
			reg.behave(honest)
			g.pullInTheEnd(t, reg.host()+"/"+repository)
			g.dropImage(t, reg.host()+"/"+repository)
			g.imagesAsBefore(t, before)
		})
	}
}

// pullInTheEnd tries until the image is here.
func (g *rig) pullInTheEnd(t *testing.T, image string) {
	t.Helper()
	pollEach(t, 100*time.Millisecond, "the image is here", func() bool {
		img, err := g.pull(image, corev1.PullAlways)
		if err != nil && !errors.Is(err, schema.ErrUnavailable) {
			t.Fatal(err)
		}
		return err == nil && img.Pulled
	})
}

func (g *rig) dropImage(t *testing.T, image string) {
	t.Helper()
	ctx := namespaces.WithNamespace(g.ctx, namespace)
	if err := g.rt.client.ImageService().Delete(ctx, image, images.SynchronousDelete()); err != nil {
		t.Fatal(err)
	}
}

// A moved tag whose new content cannot be had leaves the image as it was.
func TestSpoiltUpdateLeavesTheImage(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	image := reg.host() + "/moved:1"
	if err := push(reg.URL, "moved:1", unlike(t, "old")); err != nil {
		t.Fatal(err)
	}
	old, err := g.pull(image, corev1.PullAlways)
	if err != nil {
		t.Fatal(err)
	}
	if err := push(reg.URL, "moved:1", unlike(t, "new")); err != nil {
		t.Fatal(err)
	}
	reg.behave(hostilities()["corrupt blob"].do)
	if _, err := g.pull(image, corev1.PullAlways); !errors.Is(err, schema.ErrRefused) {
		t.Fatal(err)
	}
	now, err := g.pull(image, corev1.PullIfNotPresent)
	if err != nil || now.ID != old.ID || now.Pulled {
		t.Errorf("%+v, %v; want %s", now, err, old.ID)
	}
}

// An agent that is killed in the midst of a pull leaves a lease, which the next
// one takes over with all that was fetched.
func TestPullThatIsCutOffGoesOn(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	img, err := random.Image(3<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := push(reg.URL, "cut:1", img); err != nil {
		t.Fatal(err)
	}
	before := g.imageCounts()
	fetched := make(chan struct{}, 8)
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := answered(r, next)
		if !isBlob(r) || rec.Body.Len() < 1<<20 {
			pass(w, rec, rec.Body.Bytes())
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		_, _ = w.Write(rec.Body.Bytes()[:2<<20])
		w.(http.Flusher).Flush()
		fetched <- struct{}{}
		<-r.Context().Done()
	})
	for range 3 {
		done := make(chan error, 1)
		go func() { _, err := g.pull(reg.host()+"/cut:1", corev1.PullAlways); done <- err }()
		<-fetched
		g.reopen()
		if err := <-done; !errors.Is(err, schema.ErrUnavailable) {
			t.Errorf("cut off: %v", err)
		}
		if now := g.imageCounts(); now["leases"] != before["leases"]+1 || now["downloads"] == before["downloads"] {
			t.Errorf("before %v, now %v", before, now)
		}
	}
	reg.behave(honest)
	g.pullInTheEnd(t, reg.host()+"/cut:1")
	g.dropImage(t, reg.host()+"/cut:1")
	g.imagesAsBefore(t, before)
}

// Pulls with different credentials wait for each other, and the second finds
// what the first has fetched.
func TestOnePullWhateverTheCredentials(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	if err := push(reg.URL, "both:2", unlike(t, "")); err != nil {
		t.Fatal(err)
	}
	reg.take()
	done := make(chan error, 4)
	for i := range 4 {
		go func() {
			_, err := g.pull(reg.host()+"/both:2", corev1.PullAlways, dockerConfig(reg.host(), fmt.Sprint("user", i), "password"))
			done <- err
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	fetched := map[string]int{}
	for _, a := range reg.take() {
		if strings.Contains(a, "/blobs/") {
			if fetched[a]++; fetched[a] > 1 {
				t.Errorf("%s: fetched more than once", a)
			}
		}
	}
	if len(fetched) == 0 {
		t.Error("nothing was fetched")
	}
}

// Progress counts up to the whole, at most once a second.
func TestPullProgress(t *testing.T) {
	g, reg := newRig(t), newWatchedRegistry(t)
	img, err := random.Image(2<<20, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := push(reg.URL, "long:1", img); err != nil {
		t.Fatal(err)
	}
	reg.behave(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := answered(r, next)
		if !isBlob(r) || rec.Body.Len() < 1<<20 {
			pass(w, rec, rec.Body.Bytes())
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		for piece := range slices.Chunk(rec.Body.Bytes(), 64<<10) {
			_, _ = w.Write(piece)
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond)
		}
	})
	var told []nodeagent.PullProgress
	began := time.Now()
	_, err = g.rt.Image(g.ctx, nodeagent.ImageRequest{Image: reg.host() + "/long:1", Policy: corev1.PullAlways, Progress: func(p nodeagent.PullProgress) {
		told = append(told, p)
		if most := int(time.Since(began) / progressEach); len(told) > most {
			t.Errorf("told %d times within %v", len(told), time.Since(began))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(told)
	if len(told) < 2 || !slices.IsSortedFunc(told, func(a, b nodeagent.PullProgress) int { return int(a.Have - b.Have) }) ||
		told[0].Have == 0 || told[0].Total < 4<<20 || !strings.Contains(told[0].String(), " of 4 MiB") {
		t.Errorf("told %v", told)
	}
}
