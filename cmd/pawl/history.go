package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/schema"
)

const revisionsPath = "/apis/pawl.dev/v1/revisions"

func newHistory(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	var limit int
	var output string
	cmd := &cobra.Command{
		Use:   "history [COMMIT]",
		Short: "Show the commits the cluster looked at and what became of each",
		Long: `Show the commits that the cluster looked at, newest first: whether each was
applied or refused, what it created, changed and removed (+ ~ -), and how long it
took until everything it asks for was so (SETTLED).

With COMMIT, or as many of its first characters as tell it from others, show
that one in full: what it changed, its faults and its warnings.`,
		Example: `  pawl history
  pawl history 3fa81c2d
  pawl history --limit 1 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.restClient()
			if err != nil {
				return err
			}
			records, err := listRevisions(cmd.Context(), client)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				r, err := findRevision(records, args[0])
				if err != nil {
					return err
				}
				return printRevision(s.Out, r, output, time.Now())
			}
			if limit > 0 {
				records = records[:min(limit, len(records))]
			}
			return printHistory(s, records, output, time.Now())
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			return c.completeCommit(cmd.Context(), args, toComplete), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "How many commits to show; 0 for all that are remembered")
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: wide, json or yaml")
	return cmd
}

// listRevisions returns what the server remembers of commits, newest first.
func listRevisions(ctx context.Context, client *rest.RESTClient) ([]schema.RevisionRecord, error) {
	body, err := fetch(ctx, client.Get().AbsPath(revisionsPath))
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []schema.RevisionObject `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", revisionsPath, err)
	}
	records := make([]schema.RevisionRecord, len(list.Items))
	for i := range list.Items {
		records[i] = recordOf(&list.Items[i])
	}
	slices.SortFunc(records, func(a, b schema.RevisionRecord) int {
		return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.Commit, b.Commit))
	})
	return records, nil
}

// recordOf is the record that schema.NewRevisionObject made o from.
func recordOf(o *schema.RevisionObject) schema.RevisionRecord {
	r := schema.RevisionRecord{
		Commit: o.Spec.Commit, Author: o.Spec.Author, Email: o.Spec.Email, Subject: o.Spec.Subject, When: o.Spec.When.Time,
		Result: o.Status.Result, Seen: o.Status.Seen.Time,
		Created: o.Status.Created, Changed: o.Status.Changed, Removed: o.Status.Removed,
		Faults: o.Status.Faults, Warnings: o.Status.Warnings,
	}
	if o.Status.Settled != nil {
		r.Settled = &o.Status.Settled.Time
	}
	return r
}

// findRevision finds a commit by its first characters.
func findRevision(records []schema.RevisionRecord, commit string) (schema.RevisionRecord, error) {
	var found []schema.RevisionRecord
	for _, r := range records {
		if strings.HasPrefix(r.Commit, strings.ToLower(commit)) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return schema.RevisionRecord{}, plain{fmt.Sprintf("the cluster remembers no commit %s; see: pawl history --limit 0", commit), schema.ErrNotFound}
	default:
		return schema.RevisionRecord{}, plain{fmt.Sprintf("%d commits begin with %s; say more of it", len(found), commit), schema.ErrRefused}
	}
}

func (c *cluster) completeCommit(ctx context.Context, args []string, toComplete string) []string {
	client, err := c.restClient()
	if err != nil || len(args) > 0 {
		return nil
	}
	records, err := listRevisions(ctx, client)
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range records {
		if strings.HasPrefix(r.Commit, toComplete) {
			out = append(out, shortCommit(r)+"\t"+printable(r.Subject))
		}
	}
	return out
}

func printHistory(s genericiooptions.IOStreams, records []schema.RevisionRecord, output string, now time.Time) error {
	switch output {
	case "json", "yaml":
		return printData(s.Out, output, records)
	case "", "wide":
	default:
		return oneOf(output, "wide", "json", "yaml")
	}
	if len(records) == 0 {
		fmt.Fprintln(s.ErrOut, "No commit was looked at yet.")
		return nil
	}
	w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMMIT\tAUTHOR\tAGE\tRESULT\tCHANGES\tSETTLED\tSUBJECT")
	for _, r := range records {
		fmt.Fprintln(w, strings.Join([]string{
			shortCommit(r), printable(r.Author), duration.HumanDuration(now.Sub(r.Seen)),
			string(r.Result), changes(r), settled(r), printable(r.Subject),
		}, "\t"))
		if output == "wide" {
			printDetails(w, r, "  ")
		}
	}
	return w.Flush()
}

// printRevision shows one commit in full.
func printRevision(out io.Writer, r schema.RevisionRecord, output string, now time.Time) error {
	switch output {
	case "json", "yaml":
		return printData(out, output, r)
	case "", "wide":
	default:
		return oneOf(output, "wide", "json", "yaml")
	}
	author := r.Author
	if r.Email != "" {
		author += " <" + r.Email + ">"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"Commit", r.Commit}, {"Author", author}, {"Written", r.When.Format(time.RFC1123Z)}, {"Subject", r.Subject},
		{"Result", fmt.Sprintf("%s, %s ago", r.Result, duration.HumanDuration(now.Sub(r.Seen)))},
		{"Changes", changes(r)}, {"Settled", settled(r)},
	} {
		fmt.Fprintf(w, "%s:\t%s\n", line[0], printable(line[1]))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	printDetails(out, r, "")
	return nil
}

func printData(out io.Writer, format string, v any) error {
	if format == "yaml" {
		text, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printable keeps what a commit's author wrote from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func shortCommit(r schema.RevisionRecord) string { return r.Commit[:min(10, len(r.Commit))] }

// changes counts what a revision did, as git does: +created ~changed -removed.
func changes(r schema.RevisionRecord) string {
	if r.Result == schema.RevisionRefused {
		return count(len(r.Faults), "fault")
	}
	return fmt.Sprintf("+%d ~%d -%d", len(r.Created), len(r.Changed), len(r.Removed))
}

// settled is how long it took; less than a second in milliseconds.
func settled(r schema.RevisionRecord) string {
	switch {
	case r.Result == schema.RevisionRefused:
		return "-"
	case r.Settled == nil:
		return "not yet"
	default:
		return r.Settled.Sub(r.Seen).Round(time.Millisecond).String()
	}
}

func printDetails(w io.Writer, r schema.RevisionRecord, indent string) {
	for _, group := range []struct {
		sign string
		keys []string
	}{{"+", r.Created}, {"~", r.Changed}, {"-", r.Removed}} {
		for _, k := range group.keys {
			fmt.Fprintf(w, "%s%s %s\n", indent, group.sign, printable(k))
		}
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "%s%s\n", indent, printable(f.String()))
	}
	for _, f := range r.Warnings {
		fmt.Fprintf(w, "%swarning: %s\n", indent, printable(f.String()))
	}
}
