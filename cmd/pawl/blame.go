package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	utilcomp "k8s.io/kubectl/pkg/util/completion"

	"github.com/pawl-project/pawl/schema"
)

func newBlame(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "blame TYPE/NAME",
		Short: "Show which commit gave an object and its fields their present form",
		Long: `Show which commit an object came with, and for each field that is no longer as
it was then: the commit that changed it last, its author and date, file and line,
and the value before and after. The data of Secrets is not shown.

What the cluster made for another object, such as a pod of a deployment, is
followed to the object that stands in Git.`,
		Example: `  pawl blame deployment/web
  pawl blame pod/web-6d4cf56db6-x7x2z -n shop
  pawl blame deploy/web -o wide`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			blame, err := c.blame(cmd.Context(), args)
			if err != nil {
				return err
			}
			return printBlame(s, blame, output, time.Local)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: wide, json or yaml")
	cmd.ValidArgsFunction = utilcomp.SpecifiedResourceTypeAndNameNoRepeatCompletionFunc(cmdutil.NewFactory(c), nil)
	return cmd
}

// blame asks the server.
func (c *cluster) blame(ctx context.Context, args []string) (schema.Blame, error) {
	var blame schema.Blame
	t, err := c.target(args)
	if err != nil {
		return blame, err
	}
	client, err := c.restClient()
	if err != nil {
		return blame, err
	}
	body, err := fetch(ctx, client.Get().AbsPath(schema.BlamePath).
		Param("kind", t.Mapping.Resource.Resource).Param("namespace", t.Namespace).Param("name", t.Name))
	if err != nil {
		return blame, err
	}
	if err := json.Unmarshal(body, &blame); err != nil {
		return blame, fmt.Errorf("%s: %w", schema.BlamePath, err)
	}
	return blame, nil
}

// printBlame prints what stands in Git as git blame does: a line for the object
// and one for each field. What else there is to say goes to stderr.
func printBlame(s genericiooptions.IOStreams, b schema.Blame, output string, zone *time.Location) error {
	switch output {
	case "json", "yaml":
		return printData(s.Out, output, b)
	case "", "wide":
	default:
		return oneOf(output, "wide", "json", "yaml")
	}
	if len(b.Owners) > 0 {
		fmt.Fprintf(s.ErrOut, "%s was made for %s, which stands in Git.\n", printable(b.Asked), printable(strings.Join(b.Owners, ", for ")))
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	p := blamePrinter{w: w, wide: output == "wide", zone: zone}
	p.object(b)
	for _, f := range b.Fields {
		p.line(f.Source, f.BlameCommit, f.Path, became(f))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if b.Note != "" {
		fmt.Fprintln(s.ErrOut, printable(b.Note))
	}
	return nil
}

type blamePrinter struct {
	w    io.Writer
	wide bool
	zone *time.Location
}

// object prints the commit that the object came with, and the last that changed
// it unless a field's line names that.
func (p blamePrinter) object(b schema.Blame) {
	named := false
	if b.Created != nil {
		p.line(b.Source, *b.Created, b.Object, "created")
		named = b.Created.Commit == b.Changed.Commit
	}
	for _, f := range b.Fields {
		named = named || f.Commit == b.Changed.Commit
	}
	if !named {
		p.line(b.Source, b.Changed, b.Object, "changed")
	}
}

// line prints one thing: where it stands now, or where it stood when it is gone.
func (p blamePrinter) line(source string, c schema.BlameCommit, what, how string) {
	if source == "" {
		source = c.File
	}
	when := "-"
	if !c.When.IsZero() {
		when = c.When.In(p.zone).Format("2006-01-02 15:04")
	}
	columns := []string{c.Commit[:min(10, len(c.Commit))], c.Author, when, source, what, how}
	if p.wide {
		then := c.File
		if c.Line > 0 {
			then += fmt.Sprintf(":%d", c.Line)
		}
		columns = append(columns, then, c.Subject)
	}
	for i := range columns {
		columns[i] = printable(columns[i])
	}
	fmt.Fprintln(p.w, strings.Join(columns, "\t"))
}

// became is how a field changed.
func became(f schema.BlameField) string {
	switch {
	case f.Old == nil && f.New == nil:
		return ""
	case f.Old == nil:
		return "+ " + *f.New
	case f.New == nil:
		return "- " + *f.Old
	case *f.Old == *f.New: // what differs is not shown
		return *f.New
	}
	return *f.Old + " → " + *f.New
}
