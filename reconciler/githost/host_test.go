package githost

import (
	"strings"
	"testing"
)

func wantText(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is not in:\n%s", part, text)
		}
	}
}

func TestGoodPush(t *testing.T) {
	w := newWorld(t, nil)
	if _, ok, err := w.host.Head(t.Context()); ok || err != nil {
		t.Fatalf("Head of an empty repository: %v, %v", ok, err)
	}
	id := w.commit(w.work, "web.yaml", "good")
	out := w.git(w.work, "push", "origin", "main")
	wantText(t, out, "remote: pawl: accepted "+id[:7]+": 1 file")
	c := w.wantPushed(id)
	if got, err := c.Tree.Read(c.Tree.Files()[0], 100); string(got) != "good" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	w.commit(w.work, "odd.yaml", "odd")
	out = w.git(w.work, "push", "origin", "main")
	wantText(t, out, "remote: warning: odd.yaml:1: is odd", ": 2 files, 1 warning")
	c = w.wantPushed(w.git(w.work, "rev-parse", "HEAD"))
	if len(c.Tree.Files()) != 2 || c.Author != "Ada" {
		t.Errorf("%+v", c)
	}
	w.wantNoLeftovers()
	w.wantNothingPushed()
}

func TestBadPush(t *testing.T) {
	w := newWorld(t, nil)
	w.commit(w.work, "a.yaml", "bad from the start")
	out, err := w.try(w.work, "push", "origin", "main")
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, out, "remote: a.yaml:1:2: spec: bad from the start", "refused: 1 fault, nothing was changed; nothing is deployed yet", "pre-receive hook declined")

	good := w.commit(w.work, "a.yaml", "good")
	w.git(w.work, "push", "origin", "main")
	w.wantPushed(good)
	w.commit(w.work, "a.yaml", "bad \x1b[31mred")
	w.commit(w.work, "b.yaml", "bad too $(touch /tmp/never) `touch /tmp/never`")
	out, err = w.try(w.work, "push", "origin", "main")
	if err == nil {
		t.Fatal("accepted")
	}
	wantText(t, out, "a.yaml:1:2: spec: bad ?[31mred", "b.yaml:1:2: spec: bad too $(touch /tmp/never)", "refused: 2 faults, nothing was changed; the running revision stays "+good[:7])
	if got := w.ref("main"); got != good {
		t.Errorf("main is %s", got)
	}

	w.commit(w.work, "b.yaml", "broken")
	out, err = w.try(w.work, "push", "origin", "main")
	if err == nil || strings.Contains(out, "on fire") {
		t.Errorf("%v: %s", err, out)
	}
	wantText(t, out, "try again")
	w.wantNothingPushed()
	w.wantNoLeftovers()
}
