package reconciler

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Nobody is taken for somebody else, nor for himself when he asks as another.
func TestNobodyAsksAsAnother(t *testing.T) {
	e := newEntrance(t)
	e.door.api = said("api")
	for header, want := range map[string]string{
		"Impersonate-User":        `users \"eve\" is forbidden: User \"admin\" cannot impersonate resource \"users\"`,
		"Impersonate-Group":       `groups \"eve\" is forbidden`,
		"Impersonate-Uid":         `uids \"eve\" is forbidden`,
		"Impersonate-Extra-Scope": `userextras \"eve\" is forbidden`,
		"Impersonated":            "api for admin",
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
		r.Header.Set("Authorization", "Bearer "+e.admin)
		r.Header.Set(header, "eve")
		w := httptest.NewRecorder()
		e.door.handler().ServeHTTP(w, r)
		if text := w.Body.String(); !strings.Contains(text, want) || (w.Code == http.StatusForbidden) != strings.Contains(want, "forbidden") {
			t.Errorf("%s: %d %s", header, w.Code, text)
		}
	}
}
