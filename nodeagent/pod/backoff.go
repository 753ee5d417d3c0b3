package pod

import "time"

// The restart back-off is Kubernetes': the first restart is immediate, then
// after 10 s, 20 s, 40 s … at most 5 min; a run of 10 minutes begins anew.
const (
	firstPause = 10 * time.Second
	maxPause   = 5 * time.Minute
	calmRun    = 10 * time.Minute
)

// FirstPullPause is the pause after the first failed pull of an image.
const FirstPullPause = firstPause

// doubled is first doubled n times, at most maxPause.
func doubled(first time.Duration, n int) time.Duration {
	for ; n > 0 && first < maxPause; n-- {
		first *= 2
	}
	return min(first, maxPause)
}

// level is the back-off level at which c was started. A runtime that lost it
// has the attempt's number stand in, which is never too hasty.
func (c Container) level() int {
	if c.Backoff == 0 {
		return c.Attempt
	}
	return c.Backoff
}

// nextLevel is the level of the attempt that follows c: 1 for a restart at once.
func (c Container) nextLevel() int {
	if !c.StartedAt.IsZero() && c.FinishedAt.Sub(c.StartedAt) >= calmRun {
		return 1
	}
	return c.level() + 1
}

// restartPause is how long an attempt of this level waits after the exit of the
// one before it.
func restartPause(level int) time.Duration {
	if level <= 1 {
		return 0
	}
	return doubled(firstPause, level-2)
}

// span is a field's seconds as a duration. Who asks for hundreds of years gets
// one hundred: more does not fit, and would turn to none at all.
func span(seconds int64) time.Duration {
	const most = 100 * 365 * 24 * 3600
	return time.Duration(min(max(seconds, 0), most)) * time.Second
}
