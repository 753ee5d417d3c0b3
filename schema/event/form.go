package event

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// MessageMost is the longest message, in bytes, as in Kubernetes.
const MessageMost = 1024

const (
	nameMost   = 253 // bytes of an Event's name
	suffixMost = 16  // hex digits after the object's name
)

// Text makes a message fit to be shown in a terminal and stored: valid UTF-8 on
// one line, without control characters, at most MessageMost bytes.
func Text(s string) string {
	if len(s) > 4*MessageMost { // more than can remain
		s = s[:4*MessageMost]
	}
	s = strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == '\n', c == '\t', c == '\r':
			return ' '
		case c == utf8.RuneError, unicode.IsControl(c), unicode.In(c, unicode.Bidi_Control):
			return -1
		}
		return c
	}, s))
	if len(s) <= MessageMost {
		return s
	}
	cut := MessageMost - len("...")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// Name is the name of an Event about an object.
func Name(object, suffix string) string {
	most := nameMost - 1 - len(suffix)
	return strings.TrimRight(object[:min(len(object), most)], "-.") + "." + suffix
}

// UID is the uid of the Event of that name.
func UID(namespace, name string) types.UID {
	return schema.UIDOf(schema.ObjectKey{Kind: schema.Events, Namespace: namespace, Name: name})
}

var (
	suffixForm = regexp.MustCompile(`^[0-9a-f]{1,16}$`)
	reasonForm = regexp.MustCompile(`^[A-Z][a-zA-Z0-9]{0,127}$`)
	fieldForm  = regexp.MustCompile(`^(spec\.(init|ephemeral)?[cC]ontainers\{[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\})?$`)
)

// Suffix is what stands after the object's name in the name of an Event. The
// error wraps schema.ErrRefused.
func Suffix(e *corev1.Event) (string, error) {
	i := strings.LastIndexByte(e.Name, '.')
	if i < 0 || !suffixForm.MatchString(e.Name[i+1:]) || e.Name != Name(e.InvolvedObject.Name, e.Name[i+1:]) {
		return "", fmt.Errorf("event %.80q about %.80q: its name must be the object's, a dot and up to %d hex digits: %w",
			e.Name, e.InvolvedObject.Name, suffixMost, schema.ErrRefused)
	}
	return e.Name[i+1:], nil
}

// Check refuses an Event that no Recorder makes. Who it is about and who speaks
// is for the caller to judge. The error wraps schema.ErrRefused.
func Check(e *corev1.Event, now time.Time) error {
	refuse := func(what string) error {
		return fmt.Errorf("event %.80q: %s: %w", e.Name, what, schema.ErrRefused)
	}
	if _, err := Suffix(e); err != nil {
		return err
	}
	switch {
	case e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning:
		return refuse("its type is neither Normal nor Warning")
	case !reasonForm.MatchString(e.Reason):
		return refuse("its reason is not a CamelCase word")
	case !fieldForm.MatchString(e.InvolvedObject.FieldPath):
		return refuse("its fieldPath names no container")
	case e.Message != Text(e.Message):
		return refuse("its message is too long or holds what cannot be shown")
	case e.Count < 1:
		return refuse("its count is below 1")
	case e.FirstTimestamp.IsZero(), e.LastTimestamp.Before(&e.FirstTimestamp), e.LastTimestamp.After(now.Add(time.Hour)):
		return refuse("its times cannot be")
	}
	return nil
}
