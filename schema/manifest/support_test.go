package manifest

import (
	"os"
	"path/filepath"
	"testing"
)

// schema/SUPPORT.md says what the definitions say; go test -update writes it.
func TestSupportTableIsUpToDate(t *testing.T) {
	file := filepath.Join("..", "SUPPORT.md")
	if *update {
		if err := os.WriteFile(file, []byte(SupportTable()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != SupportTable() {
		t.Errorf("%s does not say what the definitions say; run go test -run Support -update", file)
	}
}
