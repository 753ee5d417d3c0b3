package containerd

import (
	"errors"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

func TestPropagates(t *testing.T) {
	table := hostMounts([]byte(`22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /private rw,nosuid - tmpfs tmpfs rw
24 22 0:22 / /follows rw master:3 - tmpfs tmpfs rw
25 22 0:23 / /both rw shared:4 master:3 - tmpfs tmpfs rw
`))
	for path, want := range map[string][2]bool{ // one way, both ways
		"/data": {true, true}, "/private": {false, false}, "/private/a": {false, false},
		"/follows/a": {true, false}, "/both/a": {true, true}, "/privately": {true, true},
	} {
		for i, both := range []bool{false, true} {
			err := propagates(table, path, both)
			if (err == nil) != want[i] || err != nil && !errors.Is(err, schema.ErrRefused) {
				t.Errorf("%s, both ways %v: %v", path, both, err)
			}
		}
	}
}
