package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// tier3 are fields of a pod that a document may hold without having to be
// accepted: the rarest of the collection's README. Everything else is demanded.
var tier3 = []string{
	"nodeName", "runtimeClassName", "readinessGates", "schedulingGates", "sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions",
	"hostUsers", "mountPropagation", "recursiveReadOnly", "subPathExpr", "procMount", "localhostProfile", "ephemeralContainers",
	"volumeDevices", "resourceClaims", "claims", "overhead", "resizePolicy", "restartPolicyRules", "supplementalGroupsPolicy",
}

// foreignVolumes are those of clouds and of the past: refused, each by name.
var foreignVolumes = []string{
	"awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk",
	"gitRepo", "glusterfs", "iscsi", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
}

// stillRefused are the fields of tiers 1 and 2 that Pawl does not act on yet,
// and why. It is to become empty.
var stillRefused = map[string]string{}

// withoutAdmission is what a pod without serviceAccountName hears from a server
// which was told not to admit service accounts, as the one was that the truth is
// from. Every other one fills in the name before it looks.
const withoutAdmission = "serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"

// beyond names a field of the node that is not demanded, "" when there is none.
func beyond(n *node, path string) string {
	for _, item := range n.items {
		if b := beyond(item, path+"[]"); b != "" {
			return b
		}
	}
	for _, f := range n.fields {
		here := path + "." + f.key
		switch {
		case freeKeys(path):
		case slices.Contains(tier3, f.key), strings.HasSuffix(path, ".volumes[]") && slices.Contains(foreignVolumes, f.key), stillRefused[f.key] != "":
			return here
		case strings.HasSuffix(path, ".limits") || strings.HasSuffix(path, ".requests"):
			if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage"}, f.key) {
				return here
			}
		case f.key == "image" && strings.HasSuffix(path, ".volumes[]"):
			return here
		case f.key == "generateName" && path == ".metadata":
			return here
		}
		if b := beyond(f.value, here); b != "" {
			return b
		}
	}
	return ""
}

// freeKeys says whether the keys of a map are the author's own.
func freeKeys(path string) bool {
	for _, end := range []string{"labels", "annotations", "matchLabels", "selector", "nodeSelector", "data", "binaryData", "stringData"} {
		if strings.HasSuffix(path, "."+end) {
			return true
		}
	}
	return false
}

// corpusRoot finds the collection of foreign manifests, which is too large to
// stand here. CI must have it; elsewhere a test that finds none says so aloud and
// has nothing to check.
func corpusRoot(t testing.TB) (root string, ok bool) {
	t.Helper()
	root = os.Getenv("PAWL_CORPUS")
	must := root != "" || os.Getenv("CI") != ""
	if root == "" {
		root = filepath.Join("..", "..", "..", "shared", "corpus")
	}
	if _, err := os.Stat(filepath.Join(root, "TRUTH.tsv")); err != nil {
		if must {
			t.Fatalf("the collection of foreign manifests is not there: %v; set PAWL_CORPUS to its directory", err)
		}
		fmt.Fprintf(os.Stderr, "%s: NOT CHECKED against foreign manifests: %v; PAWL_CORPUS names their directory\n", t.Name(), err)
		return "", false
	}
	return root, true
}

// A truth is what a real Kubernetes answers to one document.
type truth struct {
	file, index, apiVersion, kind, class, verdict, why string
	root                                               *node // nil when the document cannot be parsed
}

// corpusTruths reads the verdicts and finds the documents they are about.
func corpusTruths(t testing.TB) []truth {
	t.Helper()
	root, ok := corpusRoot(t)
	if !ok {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(root, "TRUTH.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var all []truth
	byFile := map[string][]int{}
	for line := range strings.Lines(string(raw)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 6 {
			continue
		}
		tr := truth{file: f[0], index: f[1], apiVersion: f[2], kind: f[3], class: f[4], verdict: f[5]}
		if len(f) > 6 {
			tr.why = f[6]
		}
		byFile[tr.file] = append(byFile[tr.file], len(all))
		all = append(all, tr)
	}
	for file, rows := range byFile {
		content, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		locate(all, rows, parse(file, content, &faultList{}))
	}
	return all
}

// locate gives each row its document: they stand in the same order, empty
// documents counted by the table and not by the parser.
func locate(all []truth, rows []int, documents []document) {
	top := 0
	for _, i := range rows {
		if !strings.Contains(all[i].index, ".") && (all[i].kind != "" || all[i].apiVersion != "" || all[i].verdict != "skip") {
			top++
		}
	}
	next := 0
	var current *node
	for _, i := range rows {
		tr := &all[i]
		if outer, inner, nested := strings.Cut(tr.index, "."); nested {
			k, err := strconv.Atoi(inner)
			if items := current.get("items"); err == nil && items != nil && k < len(items.items) && outer != "" {
				tr.root = items.items[k]
			}
			continue
		}
		if tr.kind == "" && tr.apiVersion == "" && tr.verdict == "skip" {
			continue
		}
		if next < len(documents) && (top == len(documents) || documents[next].root.str("kind") == tr.kind) {
			current = documents[next].root
			tr.root = current
			next++
		}
	}
}

// Whatever else is in the collection is refused with a place and a reason, and
// what an old API version says is read as today's.
func TestCorpusOfOtherKinds(t *testing.T) {
	counts := map[string]int{}
	for _, tr := range corpusTruths(t) {
		if tr.root == nil || (judged(tr.kind) && (tr.verdict == "accept" || tr.verdict == "reject")) || tr.kind == "List" {
			continue
		}
		o := compileObject(document{file: tr.file, root: tr.root})
		verdict := "refused"
		if o.object != nil {
			verdict = "accepted"
		}
		old := judged(tr.kind) && strings.HasPrefix(tr.verdict, "reject-or-convert")
		switch {
		case old && strings.HasSuffix(tr.verdict, "body-ok") && o.object == nil:
			t.Errorf("%s #%s: %s of %s is sound and refused: %v", tr.file, tr.index, tr.kind, tr.apiVersion, o.faults.faults)
		case old && strings.HasSuffix(tr.verdict, "body-bad") && o.object != nil && !strings.Contains(tr.why, "spec.selector: Required value"):
			t.Errorf("%s #%s: %s of %s is accepted, Kubernetes says: %s", tr.file, tr.index, tr.kind, tr.apiVersion, tr.why)
		case !old && o.object != nil:
			t.Errorf("%s #%s: %s of %s is accepted, verdict %s", tr.file, tr.index, tr.kind, tr.apiVersion, tr.verdict)
		}
		if o.object == nil {
			for _, f := range o.faults.faults {
				if f.Line == 0 || f.Problem == "" {
					t.Errorf("%s #%s: a fault without place or reason: %q", tr.file, tr.index, f.String())
				}
			}
		}
		counts[strings.SplitN(tr.verdict, ";", 2)[0]+": "+verdict]++
	}
	for _, k := range sortedKeys(counts) {
		t.Logf("%5d  %s", counts[k], k)
	}
}

func judged(kind string) bool {
	for _, info := range schema.Kinds() {
		if info.Manifest && info.GVK.Kind == kind {
			return true
		}
	}
	return false
}

// Every document of a kind Pawl knows that a real Kubernetes accepts is accepted,
// if it keeps to tiers 1 and 2 and stillRefused does not name a field of it; what
// is beyond is refused by the field's name. Kinds that Pawl does not know yet
// are refused as such, and counted apart.
func TestCorpus(t *testing.T) {
	truths := corpusTruths(t)
	if truths == nil {
		return
	}
	c := &corpusCount{T: t, counts: map[string]int{}, refused: map[string]int{}}
	for _, tr := range truths {
		switch {
		case tr.verdict == "accept" && !judged(tr.kind):
			c.unknown(tr)
		case tr.verdict == "accept":
			c.accepted(tr)
		case tr.verdict == "reject" && judged(tr.kind):
			c.rejected(tr)
		}
	}
	for _, k := range sortedKeys(c.counts) {
		t.Logf("%5d  %s", c.counts[k], k)
	}
	if n := c.counts["accept, tiers 1 and 2: accepted"]; n < 1200 {
		t.Errorf("only %d documents of tiers 1 and 2 were found", n)
	}
	for f, why := range stillRefused {
		if c.refused[f] == 0 {
			t.Errorf("no document is refused for %s (%s): take it out of the list", f, why)
		}
	}
}

type corpusCount struct {
	*testing.T
	counts  map[string]int
	refused map[string]int // by the field of stillRefused
}

// compile is nil when Pawl refuses the document.
func (c *corpusCount) compile(tr truth) (o *objectReader, accepted bool) {
	o = compileObject(document{file: tr.file, root: tr.root})
	return o, o.object != nil && tr.root.str("kind") == tr.kind // else two documents without a marker, refused as text
}

func (c *corpusCount) accepted(tr truth) {
	if tr.root == nil {
		c.Errorf("%s #%s: %s is not parsed", tr.file, tr.index, tr.kind)
		return
	}
	o, accepted := c.compile(tr)
	field := beyond(tr.root, "")
	name := field[strings.LastIndexByte(field, '.')+1:]
	switch {
	case accepted && field == "":
		c.counts["accept, tiers 1 and 2: accepted"]++
		return
	case field == "":
		c.Errorf("%s #%s: %s has only fields of tiers 1 and 2 and is refused:\n%v", tr.file, tr.index, tr.kind, o.faults.faults)
		return
	case accepted:
		c.counts["accept, tier 3: accepted"]++
		if slices.Contains(foreignVolumes, name) {
			c.Errorf("%s #%s: %s with a volume %s is accepted", tr.file, tr.index, tr.kind, name)
		}
		return
	case stillRefused[name] != "":
		c.counts["accept, tier 2, not built yet: refused by name"]++
		c.refused[name]++
	case slices.Contains(foreignVolumes, name):
		c.counts["accept, volumes of clouds and of the past: refused by name"]++
		if !slices.ContainsFunc(o.faults.faults, func(f schema.Fault) bool { return strings.HasSuffix(f.Field, "."+name) }) {
			c.Errorf("%s #%s: no fault names %s: %v", tr.file, tr.index, field, o.faults.faults)
		}
	default:
		c.counts["accept, tier 3: refused by name"]++
	}
	for _, f := range o.faults.faults {
		if !strings.Contains(f.Problem, "not supported by Pawl") {
			c.Errorf("%s #%s: beyond tiers 1 and 2 for %s, but refused for another reason: %s", tr.file, tr.index, field, f)
		}
	}
}

func (c *corpusCount) rejected(tr truth) {
	if tr.root == nil {
		c.counts["reject: not parsed, so refused"]++
		return
	}
	_, accepted := c.compile(tr)
	if accepted && strings.Contains(tr.why, withoutAdmission) {
		c.counts["reject, for want of admission: accepted"]++
		return
	}
	if accepted {
		c.Errorf("%s #%s: %s is accepted, Kubernetes says: %s", tr.file, tr.index, tr.kind, tr.why)
		return
	}
	c.counts["reject: refused"]++
}

// unknown wants a kind that Pawl does not know to be refused as that.
func (c *corpusCount) unknown(tr truth) {
	c.counts["accept, a kind Pawl does not know yet: refused as such"]++
	if tr.root == nil || tr.kind == "List" || tr.root.str("kind") != tr.kind {
		return
	}
	o, accepted := c.compile(tr)
	if accepted {
		c.Errorf("%s #%s: %s is accepted", tr.file, tr.index, tr.kind)
		return
	}
	if !slices.ContainsFunc(o.faults.faults, func(f schema.Fault) bool { return strings.Contains(f.Problem, tr.kind) }) {
		c.Errorf("%s #%s: no fault names the kind %s: %v", tr.file, tr.index, tr.kind, o.faults.faults)
	}
}

// A volume of a cloud or of the past is refused by its name, with a reason.
func TestForeignVolumesAreRefusedByName(t *testing.T) {
	for _, name := range foreignVolumes {
		text := "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n  volumes:\n  - name: v\n    " + name + ": {}\n"
		o := compileObject(parse("p.yaml", []byte(text), &faultList{})[0])
		if o.object != nil || len(o.faults.faults) != 1 {
			t.Errorf("%s: %v", name, o.faults.faults)
			continue
		}
		if f := o.faults.faults[0].String(); !strings.Contains(f, "spec.volumes[0]."+name+": is not supported by Pawl; ") {
			t.Errorf("%s: %s", name, f)
		}
	}
}
