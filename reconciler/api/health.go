package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"

	"github.com/pawl-project/pawl/reconciler/access"
)

// kubernetes is the version whose API this is.
const (
	kubernetesMajor   = "1"
	kubernetesMinor   = "36"
	kubernetesVersion = "v1.36.3"
)

// serveVersion tells the Kubernetes version whose API is spoken, and Pawl's
// behind it.
func (s *Server) serveVersion(w http.ResponseWriter, r *http.Request) {
	f := form{media: jsonMedia, pretty: true}
	body, err := json.Marshal(apiversion.Info{
		Major: kubernetesMajor, Minor: kubernetesMinor, GitVersion: kubernetesVersion + "+pawl-" + buildMetadata(s.Version),
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	})
	if err != nil {
		s.fail(w, r, err, k8sschema.GroupResource{}, "")
		return
	}
	s.writeBody(w, r, http.StatusOK, f, body)
}

// buildMetadata is a version as it may stand behind the plus of another one.
func buildMetadata(version string) string {
	if version == "" {
		version = "dev"
	}
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '.' {
			return c
		}
		return '-'
	}, version)
}

var probes = []string{"/livez", "/readyz", "/healthz"}

// isProbe says whether a path is asked by what watches over the server, without
// a credential.
func isProbe(path string) bool {
	return slices.ContainsFunc(probes, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// serveHealth answers a probe as Kubernetes prints it. Why a check fails is told
// to those who are known, and withheld from others.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	name, check, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	checks := s.checksOf(name)
	if check != "" {
		n := slices.IndexFunc(checks, func(c Check) bool { return c.Name == check })
		if n < 0 {
			s.fail(w, r, noSuchResource(), k8sschema.GroupResource{}, "")
			return
		}
		s.serveCheck(w, r, checks[n])
		return
	}
	text, failed := tell(checks, r)
	w.Header().Set("Cache-Control", "no-cache, private")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case failed:
		http.Error(w, text+name+" check failed", http.StatusInternalServerError)
	case r.URL.Query().Has("verbose"):
		fmt.Fprintf(w, "%s%s check passed\n", text, name)
	default:
		fmt.Fprint(w, "ok")
	}
}

// checksOf is what a probe looks at. That the server answers is all there is to
// being alive: a restart would not bring back what it waits for.
func (s *Server) checksOf(probe string) []Check {
	checks := []Check{{Name: "ping"}}
	if probe == "livez" {
		return checks
	}
	return append(checks, s.Checks()...)
}

func (s *Server) serveCheck(w http.ResponseWriter, r *http.Request, c Check) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if c.Err != nil {
		http.Error(w, "internal server error: "+why(c, r), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, "ok")
}

// tell prints each check on a line.
func tell(checks []Check, r *http.Request) (text string, failed bool) {
	var b strings.Builder
	excluded := slices.Clone(r.URL.Query()["exclude"])
	for _, c := range checks {
		n := slices.Index(excluded, c.Name)
		switch {
		case n >= 0:
			excluded = slices.Delete(excluded, n, n+1)
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", c.Name)
		case c.Err != nil:
			failed = true
			fmt.Fprintf(&b, "[-]%s failed: %s\n", c.Name, why(c, r))
		default:
			fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
		}
	}
	if len(excluded) > 0 {
		for n := range excluded {
			excluded[n] = fmt.Sprintf("%q", excluded[n])
		}
		fmt.Fprintf(&b, "warn: some health checks cannot be excluded: no matches for %s\n", strings.Join(excluded, ","))
	}
	return b.String(), failed
}

func why(c Check, r *http.Request) string {
	if _, known := access.UserFrom(r.Context()); known {
		return c.Err.Error()
	}
	return "reason withheld"
}
