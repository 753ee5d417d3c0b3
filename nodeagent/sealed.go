package nodeagent

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// sealedValues are the values that a container takes from Secrets as variables.
// By $(NAME) they may stand in its command or in a path, and the runtime says
// again in an error what it was told; errors are read by those who may not read
// Secrets.
func (e environment) sealedValues() []string {
	var values []string
	add := func(name string, keep func(key string) bool) {
		s, ok := e.objects.Secret(e.pod.Namespace, name)
		if !ok {
			return
		}
		for key, value := range secretData(s) {
			if keep(key) {
				values = append(values, value)
			}
		}
	}
	for i := range e.container.EnvFrom {
		if ref := e.container.EnvFrom[i].SecretRef; ref != nil {
			add(ref.Name, func(string) bool { return true })
		}
	}
	for i := range e.container.Env {
		if from := e.container.Env[i].ValueFrom; from != nil && from.SecretKeyRef != nil {
			ref := from.SecretKeyRef
			add(ref.Name, func(key string) bool { return key == ref.Key })
		}
	}
	return values
}

// usesVariables says whether a variable can come to stand in an error.
func usesVariables(c *corev1.Container) bool {
	return slices.ContainsFunc(slices.Concat(c.Command, c.Args), func(s string) bool { return strings.Contains(s, "$(") }) ||
		slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.SubPathExpr != "" })
}

// Mask is a text without values, nor lines of them, as written or quoted. What
// is shorter than three signs stays: no text would be left.
func Mask(text string, values []string) string {
	const short = 3
	var words []string
	for _, v := range values {
		for _, w := range append(strings.Split(v, "\n"), v) {
			quoted := strconv.Quote(w)
			words = append(words, w, quoted[1:len(quoted)-1])
		}
	}
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) }) // no rest of a longer one
	for _, w := range words {
		if len(w) >= short {
			text = strings.ReplaceAll(text, w, "***")
		}
	}
	return text
}

// masked is an error whose text has no value of a Secret in it; its class stays.
func masked(err error, values []string) error {
	if err == nil || Mask(err.Error(), values) == err.Error() {
		return err
	}
	return &maskedError{err, Mask(err.Error(), values)}
}

type maskedError struct {
	err  error
	text string
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }
