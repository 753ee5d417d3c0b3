package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/pawl-project/pawl/reconciler/plan"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// The loop is the only writer of pawl-desired and pawl-assignments. It wakes,
// takes a whole picture, plans, writes, sleeps. A wake-up carries no data.
type loop struct {
	store  *kv.Store
	sealer *kv.Sealer
	views  views
	intake *intake
	log    *slog.Logger
	events chan bulletin // to the publisher; dropped and counted when it is slow

	restarts restarts // orders of the API, for the loop

	planner *plan.Planner
	differ  plan.Differ            // remembers which objects it found equal
	current *schema.Revision       // the newest accepted one; nil: none since the start
	checked bool                   // current was compared with a whole view of pawl-desired
	losses  uint64                 // of keys of pawl-desired, as known when it was last fed
	applied *schema.RevisionRecord // the newest applied revision that has not settled; nil: none
	failing int                    // steps that failed in a row
	trouble trouble                // what the last step failed at, for people

	conflicted bool // the last write met a conflict: write each key by itself
}

const (
	shortestPause = 20 * time.Millisecond
	longestPause  = 15 * time.Second
)

// run goes on until ctx is done.
func (l *loop) run(ctx context.Context) error {
	// Until a revision was compared with the store, the store may lack objects
	// (it was wiped, say): nothing is removed for that.
	l.planner = plan.NewPlanner(&plan.World{KeepAll: true})
	c := l.views.subscribe()
	defer c.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.intake.wake:
		case <-c.desired.C:
		case <-c.assignments.C:
		case <-c.actual.C:
		case <-timer.C:
		}
		if !l.views.whole() {
			l.checked = false
			continue // a view says so when it is whole
		}
		timer.Reset(l.pause(l.step(ctx, c, time.Now())))
	}
}

// pause is how long to sleep when nothing happens: until the planner wants to
// look again, or with growing, jittered pauses after a failure.
func (l *loop) pause(recheck time.Time, err error) time.Duration {
	switch {
	case err == nil:
		l.failing = 0
		l.trouble.end()
		if recheck.IsZero() {
			return time.Hour
		}
		return max(time.Until(recheck), shortestPause)
	case errors.Is(err, schema.ErrConflict):
		l.log.Debug("somebody wrote first, looking again", "error", err)
		return shortestPause
	default:
		l.failing++
		l.trouble.note(err, time.Now())
		d := min(shortestPause<<min(l.failing, 12), longestPause)
		d = d/2 + rand.N(d/2+1)
		l.log.Error("reconcile failed, trying again", "error", err, "in", d.Round(time.Millisecond), "failures", l.failing)
		return d
	}
}

// step carries out what is decided from one picture.
func (l *loop) step(ctx context.Context, c changes, now time.Time) (recheck time.Time, err error) {
	var untaken error // what a new revision fails at does not stop what runs from being kept
	if v := l.intake.next(); v != nil {
		if untaken = l.takeUp(ctx, v, now); untaken != nil {
			l.intake.giveBack(v)
		}
	}
	if err := l.recordRefused(ctx, now); err != nil {
		untaken = errors.Join(untaken, err)
	}
	l.feed(c)
	if !l.checked && l.current != nil {
		if _, err := l.desire(ctx, *l.current, now); err != nil {
			return time.Time{}, err
		}
		l.feed(c)
	}
	l.planner.KeepAll(!l.checked)
	l.obey(ctx, c, now)
	result := l.planner.Plan(now)
	if err := l.commit(ctx, result.Changes); err != nil {
		return time.Time{}, err
	}
	l.tell(result.Changes, now)
	if untaken != nil {
		return time.Time{}, untaken
	}
	if result.Settled && l.checked {
		return result.Recheck, l.settle(ctx, now)
	}
	return result.Recheck, nil
}
