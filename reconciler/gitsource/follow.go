package gitsource

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pawl-project/pawl/schema"
)

const (
	firstRetry   = 2 * time.Second
	longestRetry = 5 * time.Minute
	// shortestPause keeps a storm of webhooks from becoming a storm of looks at
	// a server that has just failed.
	shortestPause = time.Second
)

// Run follows the branch until ctx is done, and then returns nil. It calls
// found with the commit that the mirror holds already, and then with each commit
// that the branch moves to (only the newest, when it moved several times),
// forced or not. found is called by one goroutine and delays the next look.
//
// What goes wrong is no end: it stands in Status, the last good commit stands,
// and the looks go on with growing pauses.
func (r *Remote) Run(ctx context.Context, found func(schema.Commit)) error {
	m := &mirror{remote: r}
	defer m.close()
	return r.follow(ctx, found, m)
}

// A source is what follow looks at: the mirror, or a test's script.
type source interface {
	// current returns the commit that is here already; false when there is none.
	current(ctx context.Context) (schema.Commit, bool, error)
	// look returns the branch's commit at the remote, and whether it differs
	// from what was returned last. A commit that is refused comes with the refusal,
	// but only once.
	look(ctx context.Context) (schema.Commit, bool, error)
}

func (r *Remote) follow(ctx context.Context, found func(schema.Commit), s source) error {
	if c, ok, err := s.current(ctx); err != nil {
		r.log.Warn("the mirror cannot be read", "error", r.clean(err))
	} else if ok {
		r.setStatus(func(s *RemoteStatus) { s.Commit = c.ID })
		found(c)
	}
	failures := 0
	for {
		c, moved, err := s.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && moved {
			r.log.Info("the branch moved", "commit", c.ID)
			r.setStatus(func(s *RemoteStatus) { s.Commit = c.ID })
			found(c)
		}
		var refusal *schema.Refusal
		if errors.As(err, &refusal) && c.ID != "" && r.o.Refused != nil {
			r.o.Refused(c, refusal)
		}
		failures = r.took(err, failures)
		if !r.rest(ctx, failures) {
			return nil
		}
	}
}

// took records how a look went and returns the number of failures in a row. A
// refusal is none: the remote answered, and the next answer may be another one.
func (r *Remote) took(err error, failures int) int {
	var refusal *schema.Refusal
	problem := ""
	switch {
	case errors.As(err, &refusal):
		failures, problem = 0, refusal.Error()
	case err != nil:
		failures, problem = failures+1, r.clean(err)
	default:
		failures = 0
	}
	before := r.Status().Problem
	r.setStatus(func(s *RemoteStatus) {
		s.LookedAt, s.Failures, s.Problem, s.Refusal = time.Now(), failures, problem, refusal
	})
	switch {
	case problem != "" && problem != before:
		r.log.Warn("the repository cannot be followed, the last good commit stands", "problem", problem)
	case problem == "" && before != "":
		r.log.Info("the repository can be followed again")
	}
	return failures
}

// rest waits for the next look; false when ctx is done.
func (r *Remote) rest(ctx context.Context, failures int) bool {
	wait := pause(r.o.Interval, failures, rand.Float64())
	r.setStatus(func(s *RemoteStatus) { s.NextLook = s.LookedAt.Add(wait) })
	if failures > 0 {
		shortest := min(shortestPause, wait)
		if !sleep(ctx, shortest, nil) {
			return false
		}
		wait -= shortest
	}
	return sleep(ctx, wait, r.now)
}

// sleep waits, or until something comes out of now; false when ctx is done.
func sleep(ctx context.Context, wait time.Duration, now <-chan struct{}) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-now:
	}
	return true
}

// pause is the time until the next look. It grows with the failures in a row,
// and chance (from 0 up to 1) spreads the looks of many clusters.
func pause(interval time.Duration, failures int, chance float64) time.Duration {
	if failures == 0 {
		return interval*9/10 + time.Duration(chance*float64(interval)/5)
	}
	wait := longestRetry
	if failures < 10 {
		wait = min(wait, firstRetry<<(failures-1))
	}
	if failures == 1 {
		wait = min(wait, interval)
	}
	return wait*3/4 + time.Duration(chance*float64(wait)/2)
}

// errBranchGone tells a deleted branch from a repository that is not there.
var errBranchGone = fmt.Errorf("the branch is gone from the remote repository: %w", schema.ErrNotFound)
