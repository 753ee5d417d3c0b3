package containerd

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/pawl-project/pawl/nodeagent"
)

// progressEach is the pause between two words of a pull's progress.
const progressEach = time.Second

// A pulling is a pull that is going on, and how far it is. All who wait for it
// share one.
type pulling struct {
	waiting  atomic.Bool // for its turn
	watchers int         // under imageStore.mu

	mu      sync.Mutex
	content content.Store // nil: nothing is fetched yet
	parts   *admission
	whole   map[digest.Digest]bool // parts that are here
	at      time.Time              // when it was last looked at
	seen    nodeagent.PullProgress // then
}

// watchPull joins those who wait for a pull.
func (s *imageStore) watchPull(key string) *pulling {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.going[key]
	if p == nil {
		p = &pulling{}
		s.going[key] = p
	}
	p.watchers++
	return p
}

func (s *imageStore) unwatchPull(key string, p *pulling) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.watchers--; p.watchers == 0 && s.going[key] == p {
		delete(s.going, key)
	}
}

// begin says what is being fetched.
func (p *pulling) begin(store content.Store, parts *admission) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.content, p.parts, p.whole = store, parts, map[digest.Digest]bool{}
}

// await waits for a pull's end, and tells of its progress meanwhile.
func (p *pulling) await(ctx context.Context, end <-chan singleflight.Result, tell func(nodeagent.PullProgress)) (singleflight.Result, error) {
	tick := time.NewTicker(progressEach)
	defer tick.Stop()
	var told nodeagent.PullProgress
	for {
		select {
		case answer := <-end:
			return answer, nil
		case <-ctx.Done():
			return singleflight.Result{}, ctx.Err()
		case <-tick.C:
			if tell == nil {
				continue
			}
			if now := p.look(ctx); now != told {
				told = now
				tell(now)
			}
		}
	}
}

// look says how far the pull is. However many ask, containerd is asked once a
// second at most.
func (p *pulling) look(ctx context.Context) nodeagent.PullProgress {
	if p.waiting.Load() {
		return nodeagent.PullProgress{Waiting: true}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.content == nil || time.Since(p.at) < progressEach/2 {
		return p.seen
	}
	ctx, cancel := context.WithTimeout(ctx, progressEach)
	defer cancel()
	under, err := p.content.ListStatuses(ctx)
	if err != nil {
		return p.seen
	}
	offsets := map[string]int64{}
	for _, u := range under {
		offsets[u.Ref] = u.Offset
	}
	var now nodeagent.PullProgress
	for _, d := range p.parts.known() {
		now.Total += nodeagent.Bytes(d.Size)
		if offset, ok := offsets[remotes.MakeRefKey(ctx, d)]; ok {
			now.Have += nodeagent.Bytes(offset)
			continue
		}
		if !p.whole[d.Digest] {
			_, err := p.content.Info(ctx, d.Digest)
			p.whole[d.Digest] = err == nil
		}
		if p.whole[d.Digest] {
			now.Have += nodeagent.Bytes(d.Size)
		}
	}
	p.at, p.seen = time.Now(), now
	return now
}
