package githost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
)

const (
	maxReported = 100 // faults printed of one commit
	maxReviewed = 8   // branches checked in one push, beside the deployed one
)

// A verdict is the answer to a push.
type verdict struct {
	accepted bool
	moves    bool     // the deployed branch gets another head
	lines    []string // for the pusher's terminal
}

// say adds a line. Control characters are what an author wrote; the pusher's
// terminal does not get them.
func (v *verdict) say(format string, args ...any) {
	v.lines = append(v.lines, strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, fmt.Sprintf(format, args...)))
}

// sameDir says whether two paths lead to one directory: git names its own by
// where links lead.
func sameDir(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// judge decides on a whole push: it is accepted or refused as one.
func (h *Host) judge(ctx context.Context, q question) verdict {
	v := verdict{accepted: true}
	repository := h.repository
	if q.quarantine != "" {
		parent, name := filepath.Split(filepath.Clean(q.quarantine))
		if !sameDir(parent, filepath.Join(h.o.Dir, "objects")) || !strings.HasPrefix(name, quarantinePrefix) {
			v.accepted = false
			v.say("pawl: refused: the objects are in an unexpected place; nothing was changed")
			return v
		}
		repository = h.repository.WithObjects(q.quarantine)
		defer repository.Close()
	}
	reviewed := 0
	for _, c := range q.changes {
		branch, ok := strings.CutPrefix(c.name, "refs/heads/")
		switch {
		case !ok:
			// A tag or a note: nothing that is deployed.
		case branch == h.o.Branch && zero(c.new):
			v.accepted = false
			v.say("pawl: refused: %s is the deployed branch and stays; nothing was changed", branch)
		case branch == h.o.Branch:
			h.judgeDeployed(ctx, repository, c, &v)
		case zero(c.new):
		case reviewed == maxReviewed:
			v.say("pawl: only %d of the branches were checked", reviewed)
			reviewed++
		case reviewed < maxReviewed:
			reviewed++
			h.review(ctx, repository, branch, c.new, &v)
		}
	}
	v.moves = v.moves && v.accepted
	return v
}

// judgeDeployed decides on the new head of the deployed branch.
func (h *Host) judgeDeployed(ctx context.Context, repository *gitsource.Repository, c refChange, v *verdict) {
	stays := "nothing is deployed yet"
	if !zero(c.old) {
		stays = "the running revision stays " + short(c.old)
	}
	files, warnings, err := h.check(ctx, repository, c.new)
	var refusal *schema.Refusal
	switch {
	case errors.As(err, &refusal):
		h.tellRefused(ctx, repository, c.new, refusal)
		v.accepted = false
		v.report("", refusal.Faults)
		v.say("pawl: refused: %s, nothing was changed; %s", count(len(refusal.Faults), "fault"), stays)
	case errors.Is(err, schema.ErrRefused):
		v.accepted = false
		v.say("pawl: refused: %v; nothing was changed; %s", err, stays)
	case err != nil:
		h.log.Error("a push could not be checked", "commit", c.new, "error", err)
		v.accepted = false
		v.say("pawl: refused: the commit could not be checked, try again; nothing was changed; %s", stays)
	default:
		v.moves = true
		v.report("warning: ", warnings)
		summary := fmt.Sprintf("pawl: accepted %s: %s", short(c.new), count(files, "file"))
		if len(warnings) > 0 {
			summary += ", " + count(len(warnings), "warning")
		}
		v.say("%s", summary)
	}
}

// tellRefused hands on what the record of the revision needs, without the tree,
// which is gone with the push.
func (h *Host) tellRefused(ctx context.Context, repository *gitsource.Repository, id string, refusal *schema.Refusal) {
	if h.o.Refused == nil {
		return
	}
	c, err := repository.Commit(ctx, id, h.o.Path)
	if err != nil && c.ID == "" { // one that is refused for its tree has a name all the same
		h.log.Warn("a refused commit is not recorded", "commit", id, "error", err)
		return
	}
	c.Tree = nil
	h.o.Refused(c, refusal)
}

// review checks a branch that is not deployed: whatever is wrong with it is
// told, and the push goes on.
func (h *Host) review(ctx context.Context, repository *gitsource.Repository, branch, id string, v *verdict) {
	_, warnings, err := h.check(ctx, repository, id)
	var refusal *schema.Refusal
	switch {
	case errors.As(err, &refusal):
		v.report("warning: ", refusal.Faults)
		v.say("pawl: %s would be refused on %s: %s", branch, h.o.Branch, count(len(refusal.Faults), "fault"))
	case errors.Is(err, schema.ErrRefused):
		v.say("pawl: %s would be refused on %s: %v", branch, h.o.Branch, err)
	case err != nil:
		h.log.Warn("a branch could not be checked", "branch", branch, "commit", id, "error", err)
		v.say("pawl: %s could not be checked", branch)
	default:
		v.report("warning: ", warnings)
		v.say("pawl: %s would be accepted on %s", branch, h.o.Branch)
	}
}

// check reads the commit and asks Check. A commit whose tree cannot be listed
// is refused without asking.
func (h *Host) check(ctx context.Context, repository *gitsource.Repository, id string) (files int, warnings []schema.Fault, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.o.CheckTimeout)
	defer cancel()
	c, err := repository.Commit(ctx, id, h.o.Path)
	if err != nil {
		return 0, nil, err
	}
	warnings, err = h.o.Check(ctx, c)
	return len(c.Tree.Files()), warnings, err
}

// report adds a line for every fault, up to maxReported.
func (v *verdict) report(prefix string, faults []schema.Fault) {
	for i, f := range faults {
		if i == maxReported {
			v.say("%s... and %d more", prefix, len(faults)-i)
			return
		}
		text := f.String()
		if len(text) > 1000 {
			text = strings.ToValidUTF8(text[:1000], "") + "..."
		}
		v.say("%s%s", prefix, text)
	}
}

func short(hash string) string { return hash[:min(len(hash), 7)] }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
