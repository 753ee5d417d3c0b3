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

// beyondTier1 are fields of a pod that a document may hold without having to be
// accepted: the rarer tiers of the collection's README. Everything else is
// demanded.
var beyondTier1 = []string{
	// tier 2
	"hostPath", "hostPort", "hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "affinity", "topologySpreadConstraints",
	"tolerations", "priorityClassName", "lifecycle", "nfs", "projected", "downwardAPI", "hostname", "subdomain", "dnsPolicy", "dnsConfig",
	"hostAliases", "enableServiceLinks", "tty", "stdin", "activeDeadlineSeconds", "resourceFieldRef", "serviceAccountToken",
	// tier 3
	"nodeName", "runtimeClassName", "readinessGates", "schedulingGates", "sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions",
	"hostUsers", "mountPropagation", "recursiveReadOnly", "subPathExpr", "image-volume", "procMount", "localhostProfile", "ephemeralContainers",
	"volumeDevices", "resourceClaims", "claims", "overhead", "resizePolicy", "restartPolicyRules", "supplementalGroupsPolicy",
	// volumes of clouds and of the past
	"awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "ephemeral", "fc", "flexVolume", "flocker", "gcePersistentDisk",
	"gitRepo", "glusterfs", "iscsi", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
}

// beyond names a field of the node that is not of tier 1, "" when there is none.
func beyond(n *node, path string) string {
	for _, item := range n.items {
		if b := beyond(item, path+"[]"); b != "" {
			return b
		}
	}
	for _, f := range n.fields {
		here := path + "." + f.key
		switch {
		case slices.Contains(beyondTier1, f.key) && !freeKeys(path):
			return here
		case strings.HasSuffix(path, ".limits") || strings.HasSuffix(path, ".requests"):
			if !slices.Contains([]string{"cpu", "memory", "ephemeral-storage"}, f.key) {
				return here
			}
		case f.key == "image" && strings.HasSuffix(path, ".volumes[]"):
			return here
		case f.key == "restartPolicy" && strings.HasSuffix(path, ".initContainers[]"):
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

func TestCorpus(t *testing.T) {
	counts := map[string]int{}
	truths := corpusTruths(t)
	if truths == nil {
		return
	}
	for _, tr := range truths {
		if !judged(tr.kind) || (tr.verdict != "accept" && tr.verdict != "reject") {
			continue
		}
		if tr.root == nil {
			counts[tr.verdict+": not parsed, so refused"]++
			if tr.verdict == "accept" {
				t.Errorf("%s #%s: %s is not parsed", tr.file, tr.index, tr.kind)
			}
			continue
		}
		o := compileObject(document{file: tr.file, root: tr.root})
		accepted := o.object != nil && tr.root.str("kind") == tr.kind // else two documents without a marker, refused as text
		tier := beyond(tr.root, "")
		switch {
		case tr.verdict == "reject" && accepted:
			t.Errorf("%s #%s: %s is accepted, Kubernetes says: %s", tr.file, tr.index, tr.kind, tr.why)
		case tr.verdict == "reject":
			counts["reject: refused"]++
		case accepted && tier == "":
			counts["accept, tier 1: accepted"]++
		case accepted:
			counts["accept, tier 2 and 3: accepted"]++
		case tier == "":
			t.Errorf("%s #%s: %s has only fields of tier 1 and is refused:\n%v", tr.file, tr.index, tr.kind, o.faults.faults)
		default:
			counts["accept, tier 2 and 3: refused by name"]++
			for _, f := range o.faults.faults {
				if !strings.Contains(f.Problem, "not supported by Pawl") {
					t.Errorf("%s #%s: beyond tier 1 for %s, but refused for another reason: %s", tr.file, tr.index, tier, f)
				}
			}
		}
	}
	for _, k := range sortedKeys(counts) {
		t.Logf("%5d  %s", counts[k], k)
	}
	if counts["accept, tier 1: accepted"] < 1000 {
		t.Errorf("only %d documents of tier 1 were found", counts["accept, tier 1: accepted"])
	}
}
