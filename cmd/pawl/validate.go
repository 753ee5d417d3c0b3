package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

// maxStdin bounds what `pawl validate -` reads, in bytes.
const maxStdin = 2 << 20

func newValidate() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "validate [PATH|-]",
		Short: "Check manifests as a push would",
		Long: `Check the manifests below PATH (default: the current directory), of one file, or
of standard input, exactly as a push to the cluster's repository would: every
fault with file, line, column and field. What begins with a dot is left out, and
so is what is no manifest (*.yaml, *.yml, *.json, *.cue). Nothing is sent
anywhere.

Faults and warnings go to standard error. The exit code is 0 when a push would
be accepted, 1 when it would be refused or the manifests could not be read.`,
		Example: `  # The working tree you stand in, before git push or as a step of CI
  pawl validate

  # One file, or what another tool writes
  pawl validate deploy/web.yaml
  kustomize build . | pawl validate -

  # For an editor or a bot
  pawl validate -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: interruptible(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("unknown output format %q, json is the only one", output)
			}
			path := "."
			if len(args) == 1 {
				path = args[0]
			}
			return validate(ctx, path, output, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "print the verdict as json on standard output")
	return cmd
}

// A verdict is what -o json prints.
type verdict struct {
	Valid    bool           `json:"valid"`
	Objects  int            `json:"objects"`
	Files    int            `json:"files"` // with objects in them
	Faults   []schema.Fault `json:"faults"`
	Warnings []schema.Fault `json:"warnings"`
}

func validate(ctx context.Context, path, output string, stdin io.Reader, stdout, stderr io.Writer) error {
	tree, err := openTree(path, input{ctx, stdin})
	if err != nil {
		return err
	}
	v := verdict{Faults: []schema.Fault{}, Warnings: []schema.Fault{}}
	result, err := manifest.NewCompiler(manifest.Options{}).Compile(ctx, tree)
	var refusal *schema.Refusal
	switch {
	case errors.As(err, &refusal):
		v.Faults = refusal.Faults
	case err != nil:
		return err
	default:
		v.Valid = true
		v.Objects, v.Files = len(result.Objects), result.Files
		v.Warnings = append(v.Warnings, result.Warnings...)
	}
	if output == "json" {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(v); err != nil {
			return fmt.Errorf("print the verdict: %w", err)
		}
	} else {
		printVerdict(v, stdout, stderr)
	}
	if !v.Valid {
		return errSilent
	}
	return nil
}

// openTree opens a directory, a file, or standard input for "-".
func openTree(path string, stdin io.Reader) (schema.Tree, error) {
	if path != "-" {
		return manifest.DirTree(path)
	}
	content, err := io.ReadAll(io.LimitReader(stdin, maxStdin+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(content) > maxStdin {
		return nil, fmt.Errorf("standard input has more than %d bytes", maxStdin)
	}
	return manifest.MemTree(map[string]string{"stdin.yaml": string(content)}), nil
}

func printVerdict(v verdict, stdout, stderr io.Writer) {
	for _, w := range v.Warnings {
		fmt.Fprintln(stderr, "warning: "+w.String())
	}
	for _, f := range v.Faults {
		fmt.Fprintln(stderr, f.String())
	}
	if v.Valid {
		fmt.Fprintf(stdout, "%s in %s are valid\n", count(v.Objects, "object"), count(v.Files, "file"))
		return
	}
	fmt.Fprintf(stderr, "%s, refused\n", count(len(v.Faults), "fault"))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
