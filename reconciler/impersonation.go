package reconciler

import (
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/access"
)

// asThemselves refuses requests in somebody else's name, which kubectl --as
// makes. To serve them in the caller's own would answer `auth can-i --as` with
// what the caller may do.
func asThemselves(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for header, values := range r.Header {
			resource, ok := impersonated(header)
			if !ok || len(values) == 0 {
				continue
			}
			u, _ := access.UserFrom(r.Context())
			access.WriteStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden, fmt.Sprintf(
				"%s %q is forbidden: User %q cannot impersonate resource %q: everybody asks in their own name here", resource, values[0], u.Name, resource))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// impersonated says what a header names, in Kubernetes' terms.
func impersonated(header string) (resource string, ok bool) {
	switch {
	case header == "Impersonate-User":
		return "users", true
	case header == "Impersonate-Group":
		return "groups", true
	case header == "Impersonate-Uid":
		return "uids", true
	case strings.HasPrefix(header, "Impersonate-Extra-"):
		return "userextras", true
	}
	return "", false
}
