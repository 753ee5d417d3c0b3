package e2e

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// goldenBase is the moment that fixtures and recordings are relative to. Whoever
// loads the fixtures moves their times, so that it becomes now: ages are then the
// same on every day.
var goldenBase = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// What a client prints of times, and what is never the same twice.
var (
	rfc3339Times     = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	rfc1123Times     = regexp.MustCompile(`(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) 20\d\d \d\d:\d\d:\d\d \+0000`)
	resourceVersions = regexp.MustCompile(`(?i)("?resource ?version"?: *"?)\d+`)
	serverAddresses  = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// mask makes what was printed comparable: times are moved back, and resource
// versions and the server's port taken out.
func (g *golden) mask(text string) string {
	text = moveTimes(text, -g.moved)
	text = rfc1123Times.ReplaceAllStringFunc(text, func(s string) string {
		at, err := time.Parse(time.RFC1123Z, s)
		if err != nil {
			return s
		}
		return at.Add(-g.moved).Format(time.RFC1123Z)
	})
	text = resourceVersions.ReplaceAllString(text, "${1}0")
	return serverAddresses.ReplaceAllString(text, "127.0.0.1:PORT")
}

// moveTimes moves every time in a text.
func moveTimes(text string, by time.Duration) string {
	return rfc3339Times.ReplaceAllStringFunc(text, func(s string) string {
		at, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return s
		}
		format := "2006-01-02T15:04:05Z"
		if i := strings.IndexByte(s, '.'); i >= 0 {
			format = "2006-01-02T15:04:05." + strings.Repeat("0", len(s)-i-2) + "Z"
		}
		return at.Add(by).Format(format)
	})
}

// goldenServed are the resources that both Kubernetes and Pawl serve, and the
// group and version of each.
var goldenServed = map[string]string{
	"configmaps": "v1", "events": "v1", "namespaces": "v1", "nodes": "v1", "pods": "v1",
	"replicationcontrollers": "v1", "secrets": "v1", "services": "v1",
	"deployments": "apps/v1", "replicasets": "apps/v1",
	"selfsubjectreviews":       "authentication.k8s.io/v1",
	"selfsubjectaccessreviews": "authorization.k8s.io/v1", "selfsubjectrulesreviews": "authorization.k8s.io/v1",
}

var goldenVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}

// onlyServed keeps of a list of resources or versions the lines of what both
// serve, without the verbs.
func onlyServed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 || !isServed(words) {
			continue
		}
		words = slices.DeleteFunc(words, func(w string) bool {
			return !slices.ContainsFunc(strings.Split(w, ","), func(v string) bool { return !slices.Contains(goldenVerbs, v) })
		})
		b.WriteString(strings.Join(words, " ") + "\n")
	}
	return b.String()
}

func isServed(words []string) bool {
	if words[0] == "NAME" {
		return true
	}
	if len(words) > 1 {
		version := goldenServed[words[0]]
		return version != "" && slices.Contains(words[1:], version)
	}
	for name, version := range goldenServed {
		group, _, grouped := strings.Cut(version, "/")
		if words[0] == version || !grouped && words[0] == name || grouped && words[0] == name+"."+group {
			return true
		}
	}
	return false
}
