package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pawl-project/pawl/reconciler/access"
)

func newToken() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke tokens that let people and programs in",
		Long: `Make, list and revoke tokens that let people and programs in at the front door.
A token has a name, which the cluster calls its user by, and a role:

  view   reads every object but Secrets, and logs
  admin  may do everything: read Secrets, exec, push, restart pods

Only a token's hash is stored. The daemon sees a change at once and is not
restarted. Every instance has two more tokens, in the files "token" (admin) and
"token-view" in its data directory.`,
	}
	cmd.AddCommand(newTokenCreate(), newTokenList(), newTokenRevoke())
	return cmd
}

func newTokenCreate() *cobra.Command {
	var i instance
	var role string
	var ttl lifetime
	cmd := &cobra.Command{
		Use:   "create NAME --role view|admin",
		Short: "Make a token and print it, once",
		Example: `  pawld token create ada@example.org --role admin --ttl 90d
  pawld token create dashboard --role view >dashboard.token`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := settleInstance(cmd, &i); err != nil {
				return err
			}
			r, err := access.ParseRole(role)
			if err != nil {
				return fmt.Errorf("--role: %w", err)
			}
			secret, t, err := access.CreateToken(i.data, args[0], r, time.Duration(ttl), time.Now())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The token of %s, role %s, %s. It is not shown again:\n", t.Name, t.Role, ends(t))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), secret)
			return err
		},
	}
	i.dataFlags(cmd.Flags())
	cmd.Flags().StringVar(&role, "role", "", "view or admin")
	cmd.Flags().Var(&ttl, "ttl", "how long the token is good for, such as 12h or 90d (default: until it is revoked)")
	return cmd
}

func newTokenList() *cobra.Command {
	var i instance
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens that were made with pawld token create",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settleInstance(cmd, &i); err != nil {
				return err
			}
			tokens, err := access.ListTokens(i.data)
			if err != nil {
				return err
			}
			if len(tokens) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "No token was made yet.")
				return nil
			}
			return printTokens(cmd.OutOrStdout(), tokens, time.Now())
		},
	}
	i.dataFlags(cmd.Flags())
	return cmd
}

func newTokenRevoke() *cobra.Command {
	var i instance
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Make a token useless, at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := settleInstance(cmd, &i); err != nil {
				return err
			}
			if err := access.RevokeToken(i.data, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "token %s is revoked\n", args[0])
			return nil
		},
	}
	i.dataFlags(cmd.Flags())
	return cmd
}

func settleInstance(cmd *cobra.Command, i *instance) error {
	if err := settle(cmd); err != nil {
		return err
	}
	return i.existing()
}

func printTokens(out io.Writer, tokens []access.Token, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tCREATED\tEXPIRES")
	for _, t := range tokens {
		end := "never"
		if !t.Expires.IsZero() {
			end = t.Expires.UTC().Format(time.RFC3339)
		}
		if t.Expired(now) {
			end += " (ended)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", t.Name, t.Role, t.Created.UTC().Format(time.RFC3339), end)
	}
	return w.Flush()
}

func ends(t access.Token) string {
	if t.Expires.IsZero() {
		return "good until it is revoked"
	}
	return "good until " + t.Expires.UTC().Format(time.RFC3339)
}
