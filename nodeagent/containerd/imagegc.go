package containerd

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// Labels on containerd's image records. They stay on them, and never get to a
// container.
const (
	// labelUsedBy and an instance's name: when that instance last used the image.
	// Only an instance that alone has used an image may remove it.
	labelUsedBy = "pawl.dev/used-by."
	// labelImported: when a person last brought the image here by hand.
	labelImported = "pawl.dev/imported"
)

const (
	defaultGCHigh = 85 // per cent
	defaultGCLow  = 80
	// gcMinAge is how long an image must be here before it may be removed.
	gcMinAge = 2 * time.Minute
	// gcHandAge is that of an image brought here by hand: somebody wants to use it.
	gcHandAge = time.Hour
	// gcNote is how old the note of an image's last use may become.
	gcNote = time.Hour
	// gcLook is the pause between two looks at what is used while there is room.
	gcLook = 5 * time.Minute
)

// imageGC removes images that nobody uses when their disk fills up.
type imageGC struct {
	store           *imageStore
	high, low       int // per cent
	minAge, handAge time.Duration

	mu     sync.Mutex // one collection at a time; guards what is below
	looked time.Time
	used   map[string]time.Time // by image name: when this process last saw it in use
}

func newImageGC(s *imageStore, o Options) (*imageGC, error) {
	g := &imageGC{store: s, high: o.ImageGCHigh, low: o.ImageGCLow, minAge: gcMinAge, handAge: gcHandAge, used: map[string]time.Time{}}
	if g.high == 0 {
		g.high = defaultGCHigh
	}
	if g.low == 0 {
		g.low = min(defaultGCLow, g.high)
	}
	if g.low < 1 || g.low > g.high || g.high > 100 {
		return nil, fmt.Errorf("images are collected from %d %% down to %d %%: must be 1 ≤ low ≤ high ≤ 100: %w", g.high, g.low, schema.ErrRefused)
	}
	return g, nil
}

// CollectImages implements nodeagent.ImageCollector. It never removes an image
// of which a container exists, whoever made it; or that stands in keep; or that
// came a moment ago, or by hand within the hour; or that another instance has
// used, or nobody of whom it knows.
func (r *Runtime) CollectImages(ctx context.Context, keep []string) (nodeagent.ImageCollection, error) {
	g := r.gc
	g.mu.Lock()
	defer g.mu.Unlock()
	disk, err := g.store.disk.look(ctx)
	if err != nil {
		return nodeagent.ImageCollection{}, err
	}
	c := nodeagent.ImageCollection{High: g.high}
	full := g.high < 100 && disk.used()*100 >= disk.capacity*int64(g.high)
	if full || time.Since(g.looked) >= gcLook {
		unused, err := g.unused(ctx, keep)
		if err == nil && full {
			err = g.free(ctx, disk, unused, &c)
		}
		if err != nil {
			return c, err
		}
		if disk, err = g.store.disk.look(ctx); err != nil {
			return c, err
		}
	}
	c.Capacity, c.Used = nodeagent.Bytes(disk.capacity), nodeagent.Bytes(disk.used())
	return c, nil
}

// A candidate is an image that may be removed.
type candidate struct {
	name string
	last time.Time // of its use
}

// unused lists what may be removed, the longest unused first, and takes down what
// is in use.
func (g *imageGC) unused(ctx context.Context, keep []string) ([]candidate, error) {
	now := time.Now()
	all, err := g.store.client.ImageService().List(ctx)
	if err != nil {
		return nil, unavailable("list the images", err)
	}
	users, err := g.store.users(ctx)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, k := range keep {
		if name, err := normalize(k); err == nil {
			wanted[name] = true
		}
	}
	var free []candidate
	known := map[string]bool{}
	for _, img := range all {
		known[img.Name] = true
		if wanted[img.Name] || len(users.of(img)) > 0 {
			g.used[img.Name] = now
		}
		if last, ok := g.mayGo(img, now); ok {
			free = append(free, candidate{img.Name, last})
		}
		if err := g.note(ctx, img, now); err != nil {
			return nil, err
		}
	}
	maps.DeleteFunc(g.used, func(name string, _ time.Time) bool { return !known[name] })
	g.looked = now
	slices.SortFunc(free, func(a, b candidate) int {
		return cmp.Or(a.last.Compare(b.last), strings.Compare(a.name, b.name))
	})
	return free, nil
}

// mayGo says whether an image may be removed, and when it was last used.
func (g *imageGC) mayGo(img images.Image, now time.Time) (last time.Time, ok bool) {
	used, ours := img.Labels[labelUsedBy+g.store.owner]
	for key := range img.Labels {
		if strings.HasPrefix(key, labelUsedBy) && key != labelUsedBy+g.store.owner {
			return last, false
		}
	}
	if last = moment(used); g.used[img.Name].After(last) {
		last = g.used[img.Name]
	}
	switch {
	case !ours, g.used[img.Name].Equal(now):
		return last, false
	case now.Sub(last) < g.minAge:
		return last, false
	case now.Sub(moment(img.Labels[labelImported])) < g.handAge:
		return last, false
	}
	return last, true
}

// note writes down when an image was last used, for who comes after this
// process: from time to time while it is used, and once when it is not any more.
func (g *imageGC) note(ctx context.Context, img images.Image, now time.Time) error {
	used, noted := g.used[img.Name], moment(img.Labels[labelUsedBy+g.store.owner])
	if !used.After(noted) || used.Equal(now) && now.Sub(noted) < gcNote {
		return nil
	}
	return g.store.labelImage(ctx, img.Name, map[string]string{labelUsedBy + g.store.owner: stamp(used)})
}

// free removes images until the disk is as empty as it should be. What nothing
// refers to goes first: that may be enough.
func (g *imageGC) free(ctx context.Context, disk diskUsage, unused []candidate, c *nodeagent.ImageCollection) error {
	goal := disk.capacity * int64(100-g.low) / 100
	c.Wanted = nodeagent.Bytes(goal - disk.free)
	began, err := disk, g.store.sweep(ctx)
	for _, u := range unused {
		if err != nil {
			break
		}
		if disk, err = g.store.disk.look(ctx); err != nil || disk.free >= goal {
			break
		}
		var removed bool
		if removed, err = g.remove(ctx, u.name); removed {
			c.Removed = append(c.Removed, u.name)
			delete(g.used, u.name)
		}
	}
	if err != nil {
		return err
	}
	if disk, err = g.store.disk.look(ctx); err != nil {
		return err
	}
	c.Freed = nodeagent.Bytes(max(0, disk.free-began.free))
	return nil
}

// remove removes an image unless it is being pulled, or is used since it was
// looked at. It returns when its space is free.
func (g *imageGC) remove(ctx context.Context, name string) (bool, error) {
	at, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	unlock, err := g.store.turns.lock(at, types.UID(name))
	if err != nil {
		return false, ctx.Err()
	}
	defer unlock()
	img, err := g.store.client.ImageService().Get(ctx, name)
	if err != nil {
		if gone(err) {
			return false, nil
		}
		return false, unavailable("look up the image", err)
	}
	users, err := g.store.users(ctx)
	if err != nil || len(users.of(img)) > 0 {
		return false, err
	}
	if err := g.store.client.ImageService().Delete(ctx, name, images.SynchronousDelete()); err != nil && !gone(err) {
		return false, unavailable("remove image "+name, err)
	}
	g.store.log.Info("removed an unused image", "image", name, "digest", img.Target.Digest)
	return true, nil
}

// sweep has containerd drop all that nothing refers to: content and layers of
// pulls that were cut off, once their lease has expired.
func (s *imageStore) sweep(ctx context.Context) error {
	manager := s.client.LeasesService()
	lease, err := manager.Create(ctx, s.moment()...)
	if err == nil {
		err = manager.Delete(ctx, lease, leases.SynchronousDelete)
	}
	if err != nil {
		return unavailable("have containerd collect its garbage", err)
	}
	return nil
}

// usedNow is the labels of an image that is being pulled.
func (s *imageStore) usedNow(before map[string]string) map[string]string {
	labels := maps.Clone(before)
	if labels == nil {
		labels = map[string]string{}
	}
	if s.owner != "" {
		labels[labelUsedBy+s.owner] = stamp(time.Now())
	}
	if s.byHand != "" {
		labels[labelImported] = stamp(time.Now())
		labels[labelUsedBy+s.byHand] = stamp(time.Now())
	}
	return labels
}

// labelImage writes labels of an image; one that has gone needs none.
func (s *imageStore) labelImage(ctx context.Context, name string, labels map[string]string) error {
	var paths []string
	for key := range labels {
		paths = append(paths, "labels."+key)
	}
	if _, err := s.client.ImageService().Update(ctx, images.Image{Name: name, Labels: labels}, paths...); err != nil && !gone(err) {
		return unavailable("label image "+name, err)
	}
	return nil
}

// imageUsers is the containers there are, by what they were made of.
type imageUsers struct{ byName, byDigest map[string][]string }

// users lists the containers of containerd's namespace, whoever made them.
func (s *imageStore) users(ctx context.Context) (imageUsers, error) {
	u := imageUsers{map[string][]string{}, map[string][]string{}}
	all, err := s.client.ContainerService().List(ctx)
	if err != nil {
		return u, unavailable("list the containers", err)
	}
	for _, c := range all {
		who := c.ID
		if l := c.Labels; l[labelPod] != "" {
			who = l[labelNamespace] + "/" + l[labelPod] + "/" + l[labelContainer]
		}
		u.byName[c.Image] = append(u.byName[c.Image], who)
		if _, id, ok := strings.Cut(c.Labels[labelImageID], "@"); ok {
			u.byDigest[id] = append(u.byDigest[id], who)
		}
	}
	return u, nil
}

// of names the containers that need an image: those that were made of its name,
// or of what it stands for.
func (u imageUsers) of(img images.Image) []string {
	who := slices.Concat(u.byName[img.Name], u.byDigest[img.Target.Digest.String()])
	slices.Sort(who)
	return slices.Compact(who)
}
