package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pawl-project/pawl/nodeagent/containerd"
)

func TestPrintImages(t *testing.T) {
	built := noon.Add(-48 * time.Hour)
	list := []containerd.NodeImage{
		{Name: "docker.io/library/nginx:1.27", ID: "sha256:0123456789abcdef0123", Size: 12_897_485, Whole: true, Created: &built, UsedBy: []string{"default/web/main", "default/b/main"}, Platform: "linux/amd64"},
		{Name: "r.test/half:1", ID: "sha256:ff", UsedBy: []string{}},
	}
	for output, want := range map[string]string{
		"": `IMAGE                          ID             SIZE           CREATED   IN USE
docker.io/library/nginx:1.27   0123456789ab   12.3 MiB       2d ago    2
r.test/half:1                  ff             <incomplete>   -         -
`,
		"wide": `IMAGE                          ID             SIZE           CREATED   IN USE   PLATFORM      LAST USED   BY
docker.io/library/nginx:1.27   0123456789ab   12.3 MiB       2d ago    2        linux/amd64   -           default/web/main default/b/main
r.test/half:1                  ff             <incomplete>   -         -        -             -           -
`,
	} {
		var out bytes.Buffer
		if err := printImages(&out, list, output, noon); err != nil || out.String() != want {
			t.Errorf("%q: %v\n%s", output, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := printImages(&out, list, "json", noon); err != nil || !strings.Contains(out.String(), `"usedBy": []`) {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := printImages(&out, list, "xml", noon); err == nil {
		t.Error("xml is a format")
	}
}

// A line of progress is written over, and away in the end.
func TestProgressLine(t *testing.T) {
	var out bytes.Buffer
	l := progressLine{out: &out}
	l.show("")
	l.show("long text")
	l.show("short")
	l.show("")
	if got, want := out.String(), "\rlong text\rshort    \r     \r"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestImagesOfAnotherMachine(t *testing.T) {
	d := newDesk(t, "http://127.0.0.1:1")
	for _, verb := range []string{"ls", "pull x", "import x", "rm x", "inspect x"} {
		d.wants("image "+verb, "", "error: context pawl has no node on this machine\n", 1)
	}
	if _, err := containerd.ParseMirrors([]string{"nonsense"}); err == nil {
		t.Error("nonsense is a mirror")
	}
}
