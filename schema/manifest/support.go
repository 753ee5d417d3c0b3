package manifest

import (
	"fmt"
	"sort"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// FieldSupport says what Pawl does with one field of Kubernetes.
type FieldSupport struct {
	Field string // "spec.affinity", "spec.containers[].tty"
	State string // "acts on it", differs, "accepted with a warning", "left out with a warning", "ignored", "refused"
	Note  string // what it does, or why it does nothing
}

var stateWords = map[support]string{
	supported:   "acts on it",
	warned:      "accepted with a warning",
	dropped:     "left out with a warning",
	ignored:     "ignored",
	unsupported: "refused",
}

// differs is the state of a field that does not do all that it does in Kubernetes.
const differs = "acts on it, otherwise"

// Support lists the fields of a kind, as its definition has them. A workload's
// pod template is not repeated: its fields are those of a Pod.
func Support(kind string) []FieldSupport {
	named, ok := shapes()[kind]
	if !ok {
		return nil
	}
	var out []FieldSupport
	listFields(named, "", &out, map[shape]bool{})
	return out
}

func listFields(s shape, path string, out *[]FieldSupport, within map[shape]bool) {
	s = base(s)
	if l, ok := s.(*listShape); ok && l.rest != nil {
		s, path = base(l.rest), path+"[]"
	}
	structure, ok := s.(*structShape)
	if !ok || within[s] {
		return
	}
	within[s] = true
	defer delete(within, s)
	fields := append(append([]*fieldShape(nil), structure.fields...), structure.patterns...)
	for _, f := range fields {
		name := f.name
		if f.key != nil {
			if len(structure.fields) == 0 {
				continue // free keys: the map's own row says it
			}
			name = "(" + strings.TrimPrefix(f.key.words(), "text that matches ") + ")"
		}
		here := strings.TrimPrefix(path+"."+name, ".")
		note := f.note
		if note == "" {
			note = f.doc
		}
		state := stateWords[f.support]
		if f.differs != "" && f.support == supported {
			state, note = differs, f.differs
		}
		*out = append(*out, FieldSupport{Field: here, State: state, Note: note})
		if f.support == supported || f.support == warned {
			if !strings.HasSuffix(here, "spec.template") && name != "initContainers" && name != "metadata" {
				listFields(f.shape, here, out, within)
			}
		}
	}
}

// SupportTable is Support of every kind as Markdown: what is not acted on, kind
// by kind, and how many fields are.
func SupportTable() string {
	var b strings.Builder
	b.WriteString("# What Pawl does with the fields of Kubernetes\n\nGenerated from schema/*.cue; a test keeps it so. A field that is in no table is acted on.\nA template's fields are those of a Pod, an init container's those of a container.\n")
	infos := schema.Kinds()
	sort.SliceStable(infos, func(i, j int) bool { return infos[i].GVK.Kind < infos[j].GVK.Kind })
	for _, info := range infos {
		if !info.Manifest {
			continue
		}
		rows := Support(info.GVK.Kind)
		acted := 0
		fmt.Fprintf(&b, "\n## %s (%s)\n\n", info.GVK.Kind, info.GVK.GroupVersion())
		var table strings.Builder
		for _, r := range rows {
			if r.State == stateWords[supported] || r.State == differs {
				acted++
			}
			if r.State == stateWords[supported] {
				continue
			}
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", r.Field, r.State, strings.ReplaceAll(r.Note, "|", `\|`))
		}
		fmt.Fprintf(&b, "%d fields are acted on.\n", acted)
		if table.Len() > 0 {
			b.WriteString("\n| field | Pawl | why |\n|---|---|---|\n" + table.String())
		}
	}
	b.WriteString(metaTable())
	return b.String()
}

func metaTable() string {
	var b strings.Builder
	b.WriteString("\n## metadata of every object\n\n| field | Pawl | why |\n|---|---|---|\n")
	var rows []FieldSupport
	listFields(shapes()["ObjectMeta"], "metadata", &rows, map[shape]bool{})
	for _, r := range rows {
		if r.State != stateWords[supported] {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Field, r.State, r.Note)
		}
	}
	return b.String()
}
