package reconciler

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

// A verdict is a commit with what the schema says of it: a revision, or the
// refusal.
type verdict struct {
	commit   schema.Commit
	revision *schema.Revision // nil when refused
	refusal  *schema.Refusal
	seen     time.Time

	// What became of the objects so far: a revision that is taken up again, because
	// the store failed in the middle, finds some of them made already. The loop's.
	created, changed, removed []string
}

// The intake turns commits into verdicts and keeps the newest one for the loop.
type intake struct {
	compiler *manifest.Compiler
	log      *slog.Logger
	wake     chan struct{} // holds one token when newest is not taken

	mu      sync.Mutex
	newest  *verdict
	refused []*verdict                         // pushes that never became the branch's head: only to be recorded
	locked  map[schema.ObjectKey]schema.Object // of the revision that stands: what must not change; the map is never changed
}

// keptRefusals bounds the refused pushes that wait to be recorded; the newest stay.
const keptRefusals = 32

func newIntake(log *slog.Logger) *intake {
	return &intake{
		compiler: manifest.NewCompiler(manifest.Options{}),
		log:      log,
		wake:     make(chan struct{}, 1),
	}
}

// check judges a commit without taking it up: the validation in the push.
func (in *intake) check(ctx context.Context, c schema.Commit) ([]schema.Fault, error) {
	result, err := in.compiler.Compile(ctx, c.Tree)
	if err != nil {
		return nil, err
	}
	return result.Warnings, in.unlocked(result.Objects)
}

// take judges a commit and hands the verdict to the loop, in place of an older
// one that the loop has not taken yet. An error that is no refusal is returned:
// time or a restart may mend it, and the commit is worth another look.
func (in *intake) take(ctx context.Context, c schema.Commit) error {
	v := &verdict{commit: c, seen: time.Now()}
	result, err := in.compiler.Compile(ctx, c.Tree)
	switch {
	case err == nil:
		v.revision = &schema.Revision{Commit: c, Objects: result.Objects, Warnings: result.Warnings}
	case errors.As(err, &v.refusal):
		in.log.Warn("commit refused, the last good revision stands", "commit", short(c.ID), "faults", len(v.refusal.Faults), "first", v.refusal.Faults[0].String())
	default:
		return err
	}
	in.put(v)
	return nil
}

// refuse notes a push that was turned away, for the record.
func (in *intake) refuse(c schema.Commit, refusal *schema.Refusal) {
	in.mu.Lock()
	in.refused = append(in.refused, &verdict{commit: c, refusal: refusal, seen: time.Now()})
	in.refused = in.refused[max(0, len(in.refused)-keptRefusals):]
	in.mu.Unlock()
	in.wakeUp()
}

// turnedAway returns the refused pushes that were not recorded yet.
func (in *intake) turnedAway() []*verdict {
	in.mu.Lock()
	defer in.mu.Unlock()
	refused := in.refused
	in.refused = nil
	return refused
}

// notRecorded gives back refused pushes that could not be recorded.
func (in *intake) notRecorded(refused []*verdict) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.refused = append(slices.Clone(refused), in.refused...)
	in.refused = in.refused[max(0, len(in.refused)-keptRefusals):]
}

func (in *intake) put(v *verdict) {
	in.mu.Lock()
	in.newest = v
	in.mu.Unlock()
	in.wakeUp()
}

func (in *intake) wakeUp() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// next returns the newest verdict that was not taken yet, or nil.
func (in *intake) next() *verdict {
	in.mu.Lock()
	defer in.mu.Unlock()
	v := in.newest
	in.newest = nil
	return v
}

// giveBack returns a verdict that could not be carried out, unless a newer one came.
func (in *intake) giveBack(v *verdict) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.newest == nil {
		in.newest = v
	}
}

func short(commit string) string {
	if len(commit) > 12 {
		return commit[:12]
	}
	return commit
}
