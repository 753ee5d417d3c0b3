// Package table knows the columns in which each kind is printed, the wide ones
// included: names, types, priorities and descriptions as Kubernetes' server
// has them, so that kubectl shows of Pawl what it shows of Kubernetes.
//
// It refuses to do: it looks at one object and at the time it is given, and
// answers with the cells of one row. It lists nothing, sorts nothing, encodes
// nothing and asks no clock. Which columns are shown is the client's choice.
package table

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/pawl-project/pawl/schema"
)

// What stands in a cell that has nothing to show.
const (
	none    = "<none>"
	unknown = "<unknown>"
)

// wide is the priority of a column that kubectl shows with -o wide only.
const wide = 1

// Columns are how the objects of one kind are printed. The zero value prints
// nothing; get one from For.
type Columns struct {
	definitions []metav1.TableColumnDefinition
	row         func(o schema.Object, now time.Time) []any
	conditions  func(o schema.Object) []metav1.TableRowCondition // nil: the kind has none
}

// For returns the columns of a kind: name and age for one that it does not know.
func For(kind schema.Kind) Columns {
	if c, ok := columns[kind]; ok {
		return c
	}
	return plain
}

// Definitions are the headers, in the order of a row's cells. The slice is the
// caller's.
func (c Columns) Definitions() []metav1.TableColumnDefinition { return slices.Clone(c.definitions) }

// Row returns an object's cells, one for each definition: strings and int64.
// Ages are told as of now. The object must be of the kind that the columns are
// for; another one is a fault of the caller, and panics.
func (c Columns) Row(o schema.Object, now time.Time) []any { return c.row(o, now) }

// Conditions says what a client should know of the whole row, such as that a
// pod has ended. Most rows have none.
func (c Columns) Conditions(o schema.Object) []metav1.TableRowCondition {
	if c.conditions == nil {
		return nil
	}
	return c.conditions(o)
}

// columns is never written to.
var columns = map[schema.Kind]Columns{
	schema.Namespaces:             namespaces,
	schema.Nodes:                  nodes,
	schema.ConfigMaps:             configMaps,
	schema.Secrets:                secrets,
	schema.Services:               services,
	schema.Pods:                   pods,
	schema.ReplicationControllers: replicationControllers,
	schema.ReplicaSets:            replicaSets,
	schema.Deployments:            deployments,
	schema.Events:                 events,
	schema.Revisions:              revisions,
	schema.PriorityClasses:        priorityClasses,
	schema.ServiceAccounts:        serviceAccounts,
}

var plain = of(func(o schema.Object, now time.Time) []any {
	return []any{o.GetName(), age(o.GetCreationTimestamp(), now)}
}, nameColumn, ageColumn)

// of makes the columns of the Go type T.
func of[T schema.Object](row func(o T, now time.Time) []any, definitions ...metav1.TableColumnDefinition) Columns {
	return Columns{
		definitions: definitions,
		row:         func(o schema.Object, now time.Time) []any { return row(o.(T), now) },
	}
}

// The columns that every kind has.
var (
	nameColumn = metav1.TableColumnDefinition{
		Name: "Name", Type: "string", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
	}
	ageColumn = text("Age", metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"])
)

func text(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func number(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

func inWide(c metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	c.Priority = wide
	return c
}

// age tells how long ago something was, in a few letters, such as 3d4h.
func age(t metav1.Time, now time.Time) string { return since(t.Time, now) }

func since(t, now time.Time) string {
	if t.IsZero() {
		return unknown
	}
	return duration.HumanDuration(now.Sub(t))
}

// or returns s, or the word for an empty cell.
func or(s, word string) string {
	if s == "" {
		return word
	}
	return s
}
