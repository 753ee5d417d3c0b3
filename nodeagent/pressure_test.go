package nodeagent

import (
	"strings"
	"testing"
	"time"
)

func TestDiskLacks(t *testing.T) {
	for name, c := range map[string]struct {
		f    fill
		want string
	}{
		"empty":       {fill{100 << 30, 100 << 30, 1000, 1000}, ""},
		"just enough": {fill{100 << 30, 10 << 30, 1000, 50}, ""},
		"bytes":       {fill{100 << 30, 10<<30 - 1, 1000, 1000}, "only 10239 of 102400 MiB are free"},
		"inodes":      {fill{100 << 30, 50 << 30, 1000, 49}, "only 49 of 1000 inodes are free"},
		"no inodes":   {fill{100 << 30, 50 << 30, 0, 0}, ""},
		"no disk":     {fill{}, ""},
		"huge":        {fill{1 << 63, 1 << 62, 1 << 63, 1 << 62}, ""},
	} {
		if got := c.f.lacks(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if f, err := fillOf(t.TempDir()); err != nil || f.bytes == 0 || f.bytesFree > f.bytes {
		t.Errorf("this disk: %+v, %v", f, err)
	}
	if _, err := fillOf("/no/such/place"); err == nil {
		t.Error("a disk that is not there")
	}
}

// TestPressureHolds: a disk that was short has to have room for a while.
func TestPressureHolds(t *testing.T) {
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var p pressure
	for _, c := range []struct {
		at    time.Duration
		lacks string
		want  string
	}{
		{0, "", ""},
		{time.Minute, "only 1", "only 1"},
		{2 * time.Minute, "", "only 1 at 2026-11-21T12:01:00Z; there must be room for 5m0s"},
		{5 * time.Minute, "only 2", "only 2"},
		{10*time.Minute - time.Second, "", "only 2 at 2026-11-21T12:05:00Z"},
		{10 * time.Minute, "", ""},
		{11 * time.Minute, "", ""},
	} {
		if got := p.update(c.lacks, start.Add(c.at)); (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("after %s: %q, want %q", c.at, got, c.want)
		}
	}
}
