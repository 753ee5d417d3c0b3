package reconciler

import (
	"errors"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// A revision that changes what is immutable is refused and recorded as such, by
// a daemon that was started since too; the object stands as it was. Removed and
// brought back it may be another.
func TestImmutable(t *testing.T) {
	r := newLoopRig(t)
	stop := r.background(r.views.run)
	r.until("views", r.views.whole)
	c := r.views.subscribe()
	take := func(id, value string, want schema.RevisionResult) {
		t.Helper()
		o := settings("a", value)
		o.Immutable = new(bool)
		*o.Immutable = true
		objects := []schema.Object{o}
		if value == "" {
			objects = nil
		}
		if refusal := (*schema.Refusal)(nil); r.current != nil && errors.As(r.intake.unlocked(objects), &refusal) != (want == schema.RevisionRefused) {
			t.Errorf("a push of %s: %v", id, refusal)
		}
		r.push(id, objects...)
		_, err := r.step(t.Context(), c, now())
		r.must(err)
		for _, record := range r.records() {
			if record.Commit != id {
				continue
			}
			if record.Result != want || want == schema.RevisionRefused && !strings.Contains(record.Faults[0].String(), "ConfigMap default/a: data: Forbidden: field is immutable when `immutable` is set") {
				t.Errorf("%s is recorded as %+v", id, record)
			}
			return
		}
		t.Errorf("%s is not recorded", id)
	}
	take("aaaaaaaa", "1", schema.RevisionApplied)
	take("bbbbbbbb", "2", schema.RevisionRefused)
	take("cccccccc", "1", schema.RevisionApplied)
	c.close()
	stop()

	r.open()
	r.background(r.views.run)
	r.until("views", r.views.whole)
	c = r.views.subscribe()
	defer c.close()
	take("dddddddd", "2", schema.RevisionRefused)
	take("eeeeeeee", "", schema.RevisionApplied)
	take("ffffffff", "2", schema.RevisionApplied)
}
