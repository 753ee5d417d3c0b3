package main

import (
	"fmt"
	"testing"
)

func TestNodeFlags(t *testing.T) {
	labels, err := parseLabels([]string{"zone=a", "example.org/disk=ssd", "empty="})
	if err != nil || fmt.Sprint(labels) != "map[empty: example.org/disk:ssd zone:a]" {
		t.Errorf("%v, %v", labels, err)
	}
	taints, err := parseTaints([]string{"gpu=yes:NoSchedule", "sick:NoExecute", "gpu=no:PreferNoSchedule"})
	if err != nil || len(taints) != 3 || taints[0].ToString() != "gpu=yes:NoSchedule" || taints[1].ToString() != "sick:NoExecute" {
		t.Errorf("%v, %v", taints, err)
	}
	for _, bad := range []string{"zone", "=a", "a b=c", "zone=a b"} {
		if _, err := parseLabels([]string{bad}); err == nil {
			t.Errorf("label %q is taken", bad)
		}
	}
	for _, bad := range []string{"gpu", "gpu=yes", "gpu:Sometimes", ":NoSchedule", "gpu=a b:NoSchedule"} {
		if _, err := parseTaints([]string{bad}); err == nil {
			t.Errorf("taint %q is taken", bad)
		}
	}
	if _, err := parseTaints([]string{"a=1:NoSchedule", "a=2:NoSchedule"}); err == nil {
		t.Error("a taint that stands twice is taken")
	}
}
