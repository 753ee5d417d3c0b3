package table

import (
	"fmt"
	"strings"
	"time"

	"github.com/pawl-project/pawl/schema"
)

// A revision's name is its whole hash, which is too wide for a terminal: the
// first column has as much of it as git shows, and the name stands among the
// wide ones, as that of an Event does.
var revisions = of(revisionRow,
	text("Commit", "The first characters of the commit's hash."),
	text("Author", "Who wrote the commit."),
	text("Age", "How long ago the reconciler took the commit up."),
	text("Result", "Applied, or Refused: then the last good revision runs on."),
	text("Changes", "How many objects the commit created (+), changed (~) and removed (-), or how many faults it has."),
	text("Settled", "How long it took until everything the commit asks for was so."),
	inWide(text("Subject", "The first line of the commit's message.")),
	inWide(text("Faults", "What is wrong with a refused commit, and where.")),
	inWide(nameColumn),
)

// shortCommit is how much of a hash is shown.
const shortCommit = 10

func revisionRow(r *schema.RevisionObject, now time.Time) []any {
	return []any{
		r.Spec.Commit[:min(shortCommit, len(r.Spec.Commit))], r.Spec.Author, since(r.Status.Seen.Time, now),
		string(r.Status.Result), changes(&r.Status), settled(&r.Status),
		r.Spec.Subject, or(faults(r.Status.Faults), none), r.Name,
	}
}

func changes(s *schema.RevisionStatus) string {
	if s.Result == schema.RevisionRefused {
		if len(s.Faults) == 1 {
			return "1 fault"
		}
		return fmt.Sprintf("%d faults", len(s.Faults))
	}
	return fmt.Sprintf("+%d ~%d -%d", len(s.Created), len(s.Changed), len(s.Removed))
}

func settled(s *schema.RevisionStatus) string {
	switch {
	case s.Result == schema.RevisionRefused:
		return "-"
	case s.Settled == nil:
		return "not yet"
	default:
		return s.Settled.Sub(s.Seen.Time).Round(time.Millisecond).String()
	}
}

func faults(all []schema.Fault) string {
	lines := make([]string, len(all))
	for i, f := range all {
		lines[i] = f.String()
	}
	return strings.Join(lines, "; ")
}
