package why

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Print writes an answer as an indented chain, the cause below what it holds up.
func (a Answer) Print(w io.Writer, now time.Time) {
	if len(a.WaitsFor) == 0 {
		fmt.Fprintln(w, "nothing: it is as Git says")
	}
	for _, f := range a.WaitsFor {
		f.print(w, now, "")
	}
	if a.Origin != "" {
		fmt.Fprintln(w, "from "+printable(a.Origin))
	}
}

func (f Finding) print(w io.Writer, now time.Time, indent string) {
	fmt.Fprintln(w, indent+printable(f.line(now)))
	for _, b := range f.Because {
		b.print(w, now, indent+"  ")
	}
	if f.Remedy != "" {
		fmt.Fprintln(w, indent+"  remedy: "+printable(f.Remedy))
	}
}

// line is one finding: Pod web-x: ImagePullBackOff since 2m, next try in 40s: message.
func (f Finding) line(now time.Time) string {
	var b strings.Builder
	b.WriteString(f.Object + ": " + f.State)
	if f.Object == "and" || strings.HasPrefix(f.Object, "Commit ") {
		b.Reset()
		b.WriteString(f.Object + " " + f.State)
	}
	if f.Since != nil {
		b.WriteString(since(f, now))
	}
	if f.NextTry != nil {
		switch left := f.NextTry.Sub(now); {
		case left <= 0:
			b.WriteString(", next try now")
		case f.About:
			b.WriteString(", next try in about " + human(left))
		default:
			b.WriteString(", next try in " + human(left))
		}
	}
	if f.More > 0 {
		fmt.Fprintf(&b, " (and %d more like it)", f.More)
	}
	if f.Detail != "" {
		b.WriteString(": " + f.Detail)
	}
	return b.String()
}

func since(f Finding, now time.Time) string {
	if strings.HasPrefix(f.Object, "Commit ") {
		return " " + human(now.Sub(*f.Since)) + " ago"
	}
	return " since " + human(now.Sub(*f.Since))
}

func human(d time.Duration) string { return duration.HumanDuration(d.Round(time.Second)) }

// printable keeps what others wrote from steering the terminal, and on one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return '?'
		}
	}, s)
}
