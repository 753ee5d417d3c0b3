package plan

import (
	"strconv"
	"strings"
	"testing"
)

// A Deployment that goes back and forth for ever does not make its ReplicaSets
// larger and larger: the oldest revisions of the list go, whole ones, as in
// Kubernetes.
func TestRevisionHistoryIsBounded(t *testing.T) {
	history := ""
	for i := 1; i <= 5000; i++ {
		history = remembered(history, strconv.Itoa(i))
		if len(history) > historyMost {
			t.Fatalf("after %d revisions the list has %d characters", i, len(history))
		}
	}
	list := strings.Split(history, ",")
	if len(history) < historyMost-5 || list[len(list)-1] != "5000" || list[0] != strconv.Itoa(5001-len(list)) {
		t.Errorf("%d characters, from %s to %s", len(history), list[0], list[len(list)-1])
	}
	if got := remembered("1,3", "5"); got != "1,3,5" {
		t.Errorf("a short list becomes %s", got)
	}
}
