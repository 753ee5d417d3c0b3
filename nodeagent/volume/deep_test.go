package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// What a removal moved up before it was cut off is not in the way of the next,
// whichever of the two it comes to first.
func TestRemoveDeepAfterACutOff(t *testing.T) {
	f := newFixture(t)
	var volumes []corev1.Volume
	for i := range 8 {
		volumes = append(volumes, emptyDir(fmt.Sprintf("v%d", i), corev1.EmptyDirVolumeSource{}))
	}
	p := newPod("u1", volumes...)
	f.setup(p)
	top := filepath.Dir(f.mounted(p)["/v0"].HostPath)
	for i := range 8 {
		deep := filepath.Join(top, fmt.Sprintf("v%d", i), strings.Repeat("d/", maxDepth+20))
		moved := filepath.Join(top, fmt.Sprintf("..deep%d", i+1), "rest")
		for _, dir := range []string{deep, moved} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Remove(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
