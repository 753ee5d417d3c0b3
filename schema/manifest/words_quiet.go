package manifest

import (
	"regexp"
	"strings"

	"github.com/pawl-project/pawl/schema"
)

// Faults are told to people who may not read Secrets: they stand in Events, in
// the record of a commit and in the daemon's log. So what a Secret says is never
// part of one. Of a Secret that is known to be one a fault has the place and the
// names of fields; of a text whose kind is not known yet (it cannot be read, its
// kind is misspelt, it is CUE that failed before it made an object) the same.

// maySeal says whether values of a kind stay out of faults.
func maySeal(kind schema.Kind) bool { return kind == schema.Secrets }

// fieldName is what a key looks like that is the name of something. Where a
// value has slipped into the place of a key, it mostly looks otherwise.
var fieldName = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_./]{0,62}$`)

// keyWord names a key in a fault of a text whose kind is not known: `key "a"`,
// or "a key" when it may be something else.
func keyWord(key string) string {
	if fieldName.MatchString(key) {
		return "key " + quote(key)
	}
	return "a key"
}

// quoted are the words that the YAML library takes from the text; what it asks
// for itself has one sign (',' or ']') or stands in angle brackets.
var quoted = regexp.MustCompile(`'[^']{2,}'|"[^"]*"`)

// yamlWords puts what the YAML library says into words without those of the text.
func yamlWords(text string) (problem, remedy string) {
	switch {
	case strings.HasPrefix(text, "unknown anchor"):
		return "not YAML: an alias names an anchor that is not there", `put a value that begins with "*" in quotes`
	case strings.Contains(text, "cannot start any token"):
		remedy = "indent with spaces, not tabs, and quote a value that begins with a special character"
	}
	return "not YAML: " + quoted.ReplaceAllString(text, "…"), remedy
}

// jsonSign is the sign of the text that encoding/json shows.
var jsonSign = regexp.MustCompile(`^invalid character ('.*'|"'") `)

// jsonWords does the same for JSON.
func jsonWords(text string) string {
	return "not JSON: " + jsonSign.ReplaceAllString(text, "a character that cannot stand here: ")
}
