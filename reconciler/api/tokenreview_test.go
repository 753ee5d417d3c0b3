package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

var robot = access.User{
	Name: "system:serviceaccount:shop:robot", Groups: []string{"system:authenticated", "system:serviceaccounts"}, UID: "uid-robot",
	Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"web-1"}},
}

func reviewFixture(token string, audiences []string) (access.User, []string, error) {
	switch token {
	case "good":
		return robot, append([]string(nil), audiences...), nil
	case "early":
		return access.User{}, nil, fmt.Errorf("the pods are not known yet: %w", schema.ErrUnavailable)
	}
	return access.User{}, nil, fmt.Errorf("token: its signature is wrong: %w", schema.ErrRefused)
}

func TestTokenReview(t *testing.T) {
	d := newDoor(t, func(o *Options) { o.Review = reviewFixture })
	const path = "/apis/authentication.k8s.io/v1/tokenreviews"
	review := func(who, token string, audiences ...string) (int, authenticationv1.TokenReview, string) {
		t.Helper()
		text, err := json.Marshal(authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}})
		if err != nil {
			t.Fatal(err)
		}
		a := d.ask("POST", path, string(text), "Authorization: Bearer "+who, "Content-Type: application/json")
		var got authenticationv1.TokenReview
		if a.StatusCode == 201 {
			a.decode(t, &got)
		}
		return a.StatusCode, got, a.text
	}
	code, got, body := review("admin", "good", "vault")
	if s := got.Status; code != 201 || !s.Authenticated || s.User.Username != robot.Name || s.User.UID != "uid-robot" || s.Audiences[0] != "vault" ||
		s.User.Extra["authentication.kubernetes.io/pod-name"][0] != "web-1" {
		t.Errorf("%d %s", code, body)
	}
	if strings.Contains(body, "good") {
		t.Errorf("the answer repeats the token: %s", body)
	}
	if code, got, body := review("admin", "bad"); code != 201 || got.Status.Authenticated || got.Status.User.Username != "" || !strings.Contains(got.Status.Error, "signature") {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := review("admin", "early"); code != 503 {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := review("admin", ""); code != 400 {
		t.Errorf("%d %s", code, body)
	}
	if code, _, body := review("view", "good"); code != 403 || strings.Contains(body, robot.Name) {
		t.Errorf("a viewer: %d %s", code, body)
	}
}

// A pod without a role asks who it is, and hears what Kubernetes says.
func TestAServiceAccountAsksWhoItIs(t *testing.T) {
	d := newDoor(t)
	info := userInfo(robot)
	if info.UID != "uid-robot" || info.Extra["authentication.kubernetes.io/pod-name"][0] != "web-1" {
		t.Errorf("%+v", info)
	}
	if a := d.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "{}", "Content-Type: application/json"); a.StatusCode != 404 {
		t.Errorf("without reviews: %d %s", a.StatusCode, a.text)
	}
}
