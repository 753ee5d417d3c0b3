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

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func newHistory(cl *cluster) *cobra.Command {
	var limit int
	var output string
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show the commits the cluster looked at and what became of each",
		Long: `Show the commits that the cluster looked at, newest first: whether each was
applied or refused, what it changed, and how long it took until everything it
asks for was so (SETTLED).`,
		Example: `  pawl history
  pawl history --limit 1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := cl.context()
			if err != nil {
				return err
			}
			records, err := readHistory(cmd.Context(), c)
			if err != nil {
				return err
			}
			if limit > 0 {
				records = records[:min(limit, len(records))]
			}
			return printHistory(cmd.OutOrStdout(), cmd.ErrOrStderr(), records, output, time.Now())
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many commits to show; 0 for all that are remembered")
	cmd.Flags().StringVarP(&output, "output", "o", "", "output format: wide or json")
	return cmd
}

// readHistory returns the store's RevisionRecords, newest first.
func readHistory(ctx context.Context, c schema.ClientContext) ([]schema.RevisionRecord, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := connect(ctx, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	records, err := kv.ReadRevisions(ctx, conn)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b schema.RevisionRecord) int {
		return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.Commit, b.Commit))
	})
	return records, nil
}

func printHistory(out, errOut io.Writer, records []schema.RevisionRecord, output string, now time.Time) error {
	switch output {
	case "json":
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(records)
	case "", "wide":
	default:
		return fmt.Errorf("unknown output format %q; must be one of wide, json", output)
	}
	if len(records) == 0 {
		fmt.Fprintln(errOut, "No commit was looked at yet.")
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMMIT\tAUTHOR\tAGE\tRESULT\tCHANGES\tSETTLED\tSUBJECT")
	for _, r := range records {
		fmt.Fprintln(w, strings.Join([]string{
			r.Commit[:min(10, len(r.Commit))], printable(r.Author), duration.HumanDuration(now.Sub(r.Seen)),
			string(r.Result), changes(r), settled(r), printable(r.Subject),
		}, "\t"))
		if output == "wide" {
			printDetails(w, r)
		}
	}
	return w.Flush()
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

// changes counts what a revision did, as git does: +created ~changed -removed.
func changes(r schema.RevisionRecord) string {
	if r.Result == schema.RevisionRefused {
		return fmt.Sprintf("%d faults", len(r.Faults))
	}
	return fmt.Sprintf("+%d ~%d -%d", len(r.Created), len(r.Changed), len(r.Removed))
}

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

func printDetails(w io.Writer, r schema.RevisionRecord) {
	for _, group := range []struct {
		sign string
		keys []string
	}{{"+", r.Created}, {"~", r.Changed}, {"-", r.Removed}} {
		for _, k := range group.keys {
			fmt.Fprintf(w, "  %s %s\n", group.sign, printable(k))
		}
	}
	for _, f := range r.Faults {
		fmt.Fprintf(w, "  %s\n", printable(f.String()))
	}
	for _, f := range r.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", printable(f.String()))
	}
}

// connect opens the store of a context, for reading.
func connect(ctx context.Context, c schema.ClientContext) (*kv.Conn, error) {
	creds, err := kv.ReadCredsFile(c.NATS.CredsFile)
	if err != nil {
		return nil, fmt.Errorf("credentials of context %s: %w", c.Name, err)
	}
	conn, err := kv.Connect(ctx, kv.ConnOptions{URL: c.NATS.URL, Credentials: creds, Name: "pawl"})
	if err != nil {
		return nil, fmt.Errorf("the cluster of context %s does not answer at %s; is `pawld up` running? (%w)", c.Name, c.NATS.URL, err)
	}
	return conn, nil
}
