package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pawl-project/pawl/reconciler/githost"
	"github.com/pawl-project/pawl/schema"
)

// follow takes up the branch as it stands, then every push, until ctx is done.
// The first look makes up for a daemon that was killed between a push and its
// taking up. A head that cannot be deployed, because the deployed folder is not in
// it, say, is no reason to stop: what stands in the store stays so, and the push
// that mends it has to come in through this very daemon.
func follow(ctx context.Context, host *githost.Host, pushed <-chan schema.Commit, in *intake) error {
	return in.judge(ctx, pushed, func(ctx context.Context) error {
		head, ok, err := host.Head(ctx)
		var refusal *schema.Refusal
		switch {
		case errors.As(err, &refusal):
			in.log.Error("the deployed branch cannot be deployed, what is in the store stands", "error", err)
			return nil
		case err != nil:
			return fmt.Errorf("read the deployed branch: %w", err)
		case ok:
			return in.take(ctx, head)
		}
		return nil
	})
}

// judge does what is first to be done, nil for nothing, and then takes the
// commits that come, until ctx is done. What fails (the evaluation child was
// killed, or a blob cannot be read) is tried again with growing pauses, until
// there is a newer commit: that one may be what mends it.
func (in *intake) judge(ctx context.Context, commits <-chan schema.Commit, attempt func(context.Context) error) error {
	for pause := shortestPause; ; {
		var again <-chan time.Time
		if attempt != nil {
			if err := attempt(ctx); err == nil {
				attempt = nil
			} else if ctx.Err() == nil {
				in.log.Error("commit cannot be judged, trying again", "error", err, "in", pause)
				again = time.After(pause)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			pause = min(pause*2, longestPause)
		case c := <-commits:
			pause = shortestPause
			attempt = func(ctx context.Context) error {
				if err := in.take(ctx, c); err != nil {
					return fmt.Errorf("commit %s: %w", short(c.ID), err)
				}
				return nil
			}
		}
	}
}
