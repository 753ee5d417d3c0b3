package blame

import (
	"context"
	"errors"
	"fmt"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

const (
	maxFile = 2 << 20 // bytes of a manifest that is read
	// maxFiles bounds how many files one search for where an object came from reads.
	maxFiles = 5000
)

// errBroken: a commit between two that were deployed holds a file that cannot be
// read; nobody knows whether the object stood in it.
var errBroken = errors.New("the file cannot be read")

// A trace follows one object through the past of a repository.
type trace struct {
	repository *gitsource.Repository
	key        schema.ObjectKey
	story      *story
	file       string   // in which the object stands at the step that comes
	at         *version // the object there
}

// run tells the story from the commit with the object in file. The note says
// why it is not told to its beginning; "" when it is.
func (t *trace) run(ctx context.Context, commit, path string, most int) (note string, err error) {
	whole, err := t.repository.Past(ctx, commit, path, most, func(s *gitsource.Step) (bool, error) {
		if t.at == nil {
			if err := t.begin(s); err != nil {
				return false, err
			}
		}
		return t.step(ctx, s)
	})
	switch {
	case errors.Is(err, context.DeadlineExceeded) && t.at != nil:
		return "The past was not looked through in time: older changes are not shown.", nil
	case err != nil:
		return "", err
	case t.at == nil:
		return "", fmt.Errorf("commit %s cannot be compared with the one before it, which is not in the repository: %w", commit, schema.ErrNotFound)
	case !whole || t.story.created == nil:
		return fmt.Sprintf("Only the last %d commits were looked at, or older ones are not in the repository: older changes are not shown.", most), nil
	}
	return "", nil
}

// begin finds the present form.
func (t *trace) begin(s *gitsource.Step) error {
	blob, err := s.Blob(t.file)
	if err == nil && blob != "" {
		t.at, err = t.read(t.file, blob)
	}
	if err == nil && t.at == nil {
		err = fmt.Errorf("%s does not stand in %s of commit %s: %w", t.key, t.file, s.Commit.ID, schema.ErrNotFound)
	}
	if err == nil {
		t.story = newStory(t.key, t.at)
	}
	return err
}

// read finds the object in a file; nil when it is not there.
func (t *trace) read(file, blob string) (*version, error) {
	if manifest.IsCUE(file) {
		return newVersion(file, manifest.LocatedObject{}), nil
	}
	content, err := t.repository.Blob(blob, maxFile)
	if errors.Is(err, schema.ErrRefused) {
		return nil, nil // too large for a manifest
	}
	if err != nil {
		return nil, err
	}
	o, found := manifest.Locate(file, content, t.key)
	switch {
	case found:
		return newVersion(file, o), nil
	case manifest.Broken(file, content):
		return nil, errBroken
	}
	return nil, nil
}

// step compares a commit with its parent; false when the object came with it.
func (t *trace) step(ctx context.Context, s *gitsource.Step) (more bool, err error) {
	change, err := s.File(t.file)
	if err != nil || change.Before == change.After {
		return err == nil, err
	}
	var before *version
	if change.Before != "" {
		before, err = t.read(t.file, change.Before)
		if errors.Is(err, errBroken) {
			return true, nil // what changed is the older commit's, that broke the file
		}
		if err != nil {
			return false, err
		}
	}
	if before == nil {
		if before, err = t.moved(ctx, s, change); err != nil {
			return false, err
		}
	}
	t.story.tell(s.Commit, t.at, before)
	if before == nil {
		return false, nil
	}
	t.at, t.file = before, before.file
	return true, nil
}

// moved looks for the object in the files that the commit changed or removed.
func (t *trace) moved(ctx context.Context, s *gitsource.Step, here gitsource.FileChange) (*version, error) {
	changes, err := s.Changes(ctx)
	if err != nil {
		return nil, err
	}
	read := 0
	for _, c := range changes {
		if c.Before == "" || c.Path == here.Path || !manifest.IsManifest(c.Path) {
			continue
		}
		if manifest.IsCUE(c.Path) != manifest.IsCUE(here.Path) || manifest.IsCUE(here.Path) && (c.After != "" || c.Before != here.After) {
			continue // of CUE only a file that was renamed and nothing else is the same
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, err := t.read(c.Path, c.Before)
		if v != nil || err != nil && !errors.Is(err, errBroken) {
			return v, err
		}
		if read++; read == maxFiles {
			break
		}
	}
	return nil, nil
}
