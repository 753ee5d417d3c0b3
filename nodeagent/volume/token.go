package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

// A tokenError says that a token cannot be had. A volume that has one keeps it.
type tokenError struct{ error }

func (e tokenError) Unwrap() error { return e.error }

func isTokenError(err error) bool { return errors.As(err, new(tokenError)) }

// A tokenFunc returns the token for a projection whose file lies at a path below
// the volume.
type tokenFunc func(t *corev1.ServiceAccountTokenProjection, at string) (string, error)

// tokensFor has the tokens of a volume of the pod, which knows those it holds.
func tokensFor(ctx context.Context, p *corev1.Pod, dir string, objects nodeagent.Objects) tokenFunc {
	return func(t *corev1.ServiceAccountTokenProjection, at string) (string, error) {
		tokens, ok := objects.(nodeagent.Tokens)
		if !ok {
			return "", fmt.Errorf("this node has no service accounts: %w", schema.ErrRefused)
		}
		text, err := tokens.Token(ctx, p, t, heldToken(dir, at))
		if err != nil {
			return "", tokenError{err}
		}
		return text, nil
	}
}

// heldToken is what a file of the volume holds; "" when there is none.
func heldToken(dir, at string) string {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ""
	}
	defer root.Close()
	text, err := root.ReadFile(path.Join(dataLink, at))
	if err != nil {
		return "" // a new one is had
	}
	return string(text)
}

// serviceAccountToken adds a file with a token. As in Kubernetes it is for its
// reader alone when that is known: the user whom all containers have, or the
// pod's fsGroup.
func (f filer) serviceAccountToken(all files, t *corev1.ServiceAccountTokenProjection, mode int32) error {
	at, err := cleanPath(t.Path)
	if err != nil {
		return fmt.Errorf("serviceAccountToken: path: %w", err)
	}
	text, err := f.token(t, at)
	if err != nil {
		return fmt.Errorf("serviceAccountToken %s: %w", at, err)
	}
	made := file{data: []byte(text), mode: mode}
	user := commonUser(&f.pod.Spec)
	if user != nil || fsGroup(f.pod) != nil {
		made.mode = 0o600
	}
	if user != nil {
		made.user = *user
	}
	all[at] = made
	return nil
}

// commonUser is the user that the spec gives to every container; nil when one has
// none, or another.
func commonUser(s *corev1.PodSpec) *int64 {
	var pods *int64
	if s.SecurityContext != nil {
		pods = s.SecurityContext.RunAsUser
	}
	var common *int64
	for _, list := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range list {
			user := pods
			if c := list[i].SecurityContext; c != nil && c.RunAsUser != nil {
				user = c.RunAsUser
			}
			if user == nil || common != nil && *common != *user {
				return nil
			}
			common = user
		}
	}
	return common
}
