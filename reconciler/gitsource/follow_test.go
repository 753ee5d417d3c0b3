package gitsource

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pawl-project/pawl/schema"
)

// A script is a source whose looks go as the test says.
type script struct {
	start   time.Time
	looks   []time.Duration // when each began, since the start
	answers func(look int) (id string, err error)
	last    string
}

func (s *script) current(context.Context) (schema.Commit, bool, error) {
	return schema.Commit{}, false, nil
}

func (s *script) look(context.Context) (schema.Commit, bool, error) {
	s.looks = append(s.looks, time.Since(s.start))
	id, err := s.answers(len(s.looks) - 1)
	if err != nil {
		return schema.Commit{}, false, err
	}
	moved := id != s.last
	s.last = id
	return schema.Commit{ID: id}, moved, nil
}

// runScript follows the script for a while of the bubble's time and returns the
// commits that were found.
func runScript(t *testing.T, s *script, interval, length time.Duration, during func(*Remote)) (*Remote, []string) {
	r, err := NewRemote(RemoteOptions{URL: "https://example.org/x.git", Dir: "/nonexistent", Interval: interval, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.start = time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	if during != nil {
		go during(r)
	}
	var found []string
	if err := r.follow(ctx, func(c schema.Commit) { found = append(found, c.ID) }, s); err != nil {
		t.Fatal(err)
	}
	return r, found
}

func TestLooksAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: func(i int) (string, error) { return fmt.Sprint(i / 10), nil }}
		_, found := runScript(t, s, time.Minute, time.Hour, nil)
		if n := len(s.looks); n < 55 || n > 66 {
			t.Errorf("%d looks in an hour", n)
		}
		same := map[time.Duration]bool{}
		for i := 1; i < len(s.looks); i++ {
			gap := s.looks[i] - s.looks[i-1]
			if gap < 54*time.Second || gap > 66*time.Second {
				t.Errorf("a pause of %v", gap)
			}
			same[gap] = true
		}
		if len(same) < 10 {
			t.Error("the looks are not spread")
		}
		if want := []string{"0", "1", "2"}; len(found) < 3 || !cmp.Equal(found[:3], want) {
			t.Errorf("found %v", found)
		}
	})
}

func TestFailuresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := fmt.Errorf("connection refused: %w", schema.ErrUnavailable)
		s := &script{answers: func(i int) (string, error) {
			if i > 0 && i < 20 {
				return "", away
			}
			return "a", nil
		}}
		r, found := runScript(t, s, time.Minute, 3*time.Hour, func(r *Remote) {
			time.Sleep(40 * time.Minute) // in the bubble's time
			status := r.Status()
			if status.Failures < 8 || status.Problem == "" || status.Commit != "a" || !status.NextLook.After(status.LookedAt) {
				t.Errorf("%+v", status)
			}
		})
		for i := 2; i < 20; i++ {
			gap := s.looks[i] - s.looks[i-1]
			want := min(longestRetry, firstRetry<<min(i-2, 20))
			if gap < want*3/4 || gap > want*5/4 {
				t.Errorf("pause %d is %v, want about %v", i, gap, want)
			}
		}
		if status := r.Status(); status.Failures != 0 || status.Problem != "" {
			t.Errorf("%+v", status)
		}
		if !cmp.Equal(found, []string{"a"}) {
			t.Errorf("found %v", found)
		}
	})
}

func TestLookNowDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: func(i int) (string, error) {
			if i == 1 {
				time.Sleep(time.Second) // the server takes its time, and all that is asked meanwhile is one
			}
			return fmt.Sprint(i), nil
		}}
		runScript(t, s, time.Hour, 10*time.Minute, func(r *Remote) {
			time.Sleep(5 * time.Minute)
			r.LookNow()
			synctest.Wait()
			for range 100 {
				r.LookNow()
			}
		})
		if want := []time.Duration{0, 5 * time.Minute, 5*time.Minute + time.Second}; !slices.Equal(s.looks, want) {
			t.Errorf("looks at %v, want %v", s.looks, want)
		}
	})
}

// A storm of webhooks is no storm of looks at a server that fails.
func TestLookNowWhileFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answers: func(i int) (string, error) { return "", errors.New("no") }}
		runScript(t, s, time.Hour, time.Minute, func(r *Remote) {
			for range 6000 {
				time.Sleep(10 * time.Millisecond)
				r.LookNow()
			}
		})
		if n := len(s.looks); n < 50 || n > 62 {
			t.Errorf("%d looks in a minute", n)
		}
	})
}

func TestPauseHasBounds(t *testing.T) {
	for failures := range 2000 {
		for _, interval := range []time.Duration{time.Millisecond, time.Second, time.Hour} {
			for _, chance := range []float64{0, 0.5, 0.999} {
				got := pause(interval, failures, chance)
				most := max(longestRetry, interval) * 5 / 4
				if got <= 0 || got > most {
					t.Fatalf("pause(%v, %d, %v) = %v", interval, failures, chance, got)
				}
			}
		}
	}
}
