package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// settle fills in every flag that was not given on the command line from the
// environment (PAWL_…) and then from the file named by --config.
func settle(cmd *cobra.Command) error {
	if err := fromEnvironment(cmd.Flags()); err != nil {
		return err
	}
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return err
	}
	return fromFile(cmd.Flags(), newUp().Flags(), path, cmd.Flags().Changed("config"))
}

func fromEnvironment(flags *pflag.FlagSet) error {
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "PAWL_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		v, ok := os.LookupEnv(name)
		if !ok || f.Changed {
			return
		}
		if err := flags.Set(f.Name, v); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(faults...)
}

// fromFile reads a flat YAML map of flag names. A file that is not there is a
// fault only when it was asked for. What only the others know is passed over.
func fromFile(flags, others *pflag.FlagSet, path string, asked bool) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return nil
	}
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var faults []error
	for name, v := range values {
		f := flags.Lookup(name)
		switch {
		case f == nil && others.Lookup(name) != nil: // the file is up's as much as down's
		case f == nil || name == "config" || name == "help":
			faults = append(faults, fmt.Errorf("%s: no setting %q; see pawld up --help", path, name))
		case f.Changed:
		default:
			if err := setValues(flags, name, v); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", path, name, err))
			}
		}
	}
	return errors.Join(faults...)
}

// setValues sets a flag from a YAML scalar, or a repeatable one from a list. A
// name without a value sets nothing.
func setValues(flags *pflag.FlagSet, name string, v any) error {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, e := range list {
		text := ""
		switch e := e.(type) {
		case nil:
			continue
		case float64: // as JSON has all numbers
			text = strconv.FormatFloat(e, 'f', -1, 64)
		case string, bool:
			text = fmt.Sprint(e)
		default:
			return errors.New("want a value, or a list of them")
		}
		if err := flags.Set(name, text); err != nil {
			return err
		}
	}
	return nil
}

// A lifetime is a duration that people may give in days.
type lifetime time.Duration

// Set implements pflag.Value.
func (l *lifetime) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fmt.Errorf("%q: want a number of days such as 90d, or a duration such as 12h", s)
		}
		*l = lifetime(n) * lifetime(24*time.Hour)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q: want a duration such as 12h, or a number of days such as 90d", s)
	}
	*l = lifetime(d)
	return nil
}

// Type implements pflag.Value.
func (l *lifetime) Type() string { return "duration" }

// String implements pflag.Value.
func (l *lifetime) String() string {
	d := time.Duration(*l)
	switch {
	case d == 0:
		return ""
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	default:
		return d.String()
	}
}
