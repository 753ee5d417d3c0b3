package main

import (
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

var (
	noon    = time.Now().Add(-time.Hour).Truncate(time.Second)
	later   = noon.Add(94 * time.Millisecond)
	records = []schema.RevisionRecord{
		{
			Commit: "3fa81c2d9e7700aabbccddeeff00112233445566", Author: "Ada", Email: "ada@example.org", Subject: "Serve", When: noon, Seen: noon,
			Result: schema.RevisionApplied, Settled: &later,
			Created: []string{"deployments.default.web", "configmaps.default.conf"}, Changed: []string{"secrets.default.s"},
			Warnings: []schema.Fault{{File: "web.yaml", Line: 4, Object: "Deployment default/web", Field: "spec.x", Problem: "has no effect"}},
		},
		{
			Commit: "99aa88bb77cc66dd55ee44ff33221100aabbccdd", Author: "Bob\x1b[2J", Subject: "Break it", When: noon.Add(time.Minute), Seen: noon.Add(time.Minute),
			Result: schema.RevisionRefused,
			Faults: []schema.Fault{{File: "web.yaml", Line: 6, Column: 3, Object: "Deployment default/web", Field: "spec.replcas", Problem: "unknown field", Remedy: "did you mean replicas?"}},
		},
		{Commit: "3b00000000000000000000000000000000000000", Author: "Ada", Subject: "Mend it", When: noon.Add(2 * time.Minute), Seen: noon.Add(2 * time.Minute), Result: schema.RevisionApplied},
	}
	revisions = encoded(struct {
		metav1.TypeMeta `json:",inline"`
		Items           []*schema.RevisionObject `json:"items"`
	}{metav1.TypeMeta{APIVersion: "pawl.dev/v1", Kind: "RevisionList"}, objects(records)})
)

func objects(records []schema.RevisionRecord) (out []*schema.RevisionObject) {
	for i := range records {
		out = append(out, schema.NewRevisionObject(&records[i]))
	}
	return out
}

func TestHistory(t *testing.T) {
	s := newServer(t)
	s.on("GET "+revisionsPath, revisions)
	d := newDesk(t, s.URL)
	d.wants("history", `COMMIT       AUTHOR    AGE   RESULT    CHANGES    SETTLED   SUBJECT
3b00000000   Ada       58m   Applied   +0 ~0 -0   not yet   Mend it
99aa88bb77   Bob?[2J   59m   Refused   1 fault    -         Break it
3fa81c2d9e   Ada       60m   Applied   +2 ~1 -0   94ms      Serve
`, "", 0)
	d.wants("history --limit 1", `COMMIT       AUTHOR   AGE   RESULT    CHANGES    SETTLED   SUBJECT
3b00000000   Ada      58m   Applied   +0 ~0 -0   not yet   Mend it
`, "", 0)
	d.wants("history 3fa8", "Commit:   3fa81c2d9e7700aabbccddeeff00112233445566\nAuthor:   Ada <ada@example.org>\nWritten:  "+noon.Local().Format(time.RFC1123Z)+`
Subject:  Serve
Result:   Applied, 60m ago
Changes:  +2 ~1 -0
Settled:  94ms
+ deployments.default.web
+ configmaps.default.conf
~ secrets.default.s
warning: web.yaml:4: Deployment default/web: spec.x: has no effect
`, "", 0)
	d.wants("history 3", "", "error: 2 commits begin with 3; say more of it\n", 1)
	d.wants("history ffff", "", "error: the cluster remembers no commit ffff; see: pawl history --limit 0\n", 1)
	d.wants("history -o xml", "", "error: unknown output format \"xml\"; must be one of wide, json, yaml\n", 1)

	out, _, _ := d.pawl("history", "-o", "json")
	var got []schema.RevisionRecord
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got) != 3 || got[2].Commit != records[0].Commit || !got[2].Settled.Equal(later) {
		t.Errorf("as json: %v\n%s", err, out)
	}
}

func TestHistoryOfNothing(t *testing.T) {
	s := newServer(t)
	s.on("GET "+revisionsPath, `{"kind": "RevisionList", "apiVersion": "pawl.dev/v1", "items": []}`)
	newDesk(t, s.URL).wants("history", "", "No commit was looked at yet.\n", 0)
}

func TestWhy(t *testing.T) {
	s := newServer(t)
	s.on("GET "+revisionsPath, `{"items": []}`)
	s.on("GET /api/v1/namespaces/default/pods/p", stuckPod)
	s.on("GET /api/v1/namespaces/default/configmaps/c", `{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c", "namespace": "default"}}`)
	d := newDesk(t, s.URL)
	const want = "Pod p: no node takes it: 0/1 nodes are available: 1 Too many pods.\n"
	d.wants("why pod p", want, "", 0)
	d.wants("why po/p", want, "", 0)
	d.wants("why cm/c", "nothing: it is as Git says\n", "", 0)
	d.wants("why cm/absent", "ConfigMap default/absent: is not there\n  remedy: commit it: what Git does not have does not run\n", "", 0)
	d.wants("why nosuch/x", "", "error: the server doesn't have a resource type \"nosuch\"\n", 1)
	d.wants("why pod ..", "", "error: invalid resource name \"..\": [may not be '..']\n", 1)
	d.wants("why pod/p -n ../x", "", "error: invalid namespace \"../x\": [may not contain '/']\n", 1)
	d.wants("why pods", "", "error: name one object, as TYPE/NAME or TYPE NAME, such as deployment/web\n", 1)
	s.refuse("GET /api/v1/namespaces/default/configmaps/c", 403, "Forbidden", "configmaps is forbidden")
	d.wants("why cm/c", "", "Error from server (Forbidden): configmaps is forbidden\n", 1)
}

const stuckPod = `{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []},
	"status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Too many pods."}]}}`
