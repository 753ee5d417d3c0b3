package containerd

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// maxCredentials bounds how many credentials are tried for one pull.
const maxCredentials = 8

// credentials for one registry; the zero value is nobody's.
type credentials struct {
	registry string // host[:port], as images name it
	user     string
	password string // or an identity token when user is ""
}

func keysOf(m map[string][]byte) iter.Seq[string] { return maps.Keys(m) }

// credentialsFor lists what the secrets hold for an image, the closest match
// first, then in the order of the secrets; nobody's when they hold nothing. A
// secret that cannot be read holds nothing, as another may do; faults says which.
func credentialsFor(name string, secrets []corev1.Secret) (list []credentials, faults []string) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return []credentials{{}}, nil
	}
	registry, repository := reference.Domain(named), reference.Path(named)
	type match struct {
		credentials
		depth int
	}
	var found []match
	for _, s := range secrets {
		auths, err := authsOf(s)
		if err != nil {
			faults = append(faults, fmt.Sprintf("secret %s/%s: %v", s.Namespace, s.Name, err))
		}
		for _, at := range slices.Sorted(maps.Keys(auths)) {
			depth, ok := covers(at, registry, repository)
			user, password := auths[at].login()
			if ok && password != "" {
				found = append(found, match{credentials{registry, user, password}, depth})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return b.depth - a.depth })
	for _, m := range found {
		if len(list) < maxCredentials && !slices.Contains(list, m.credentials) {
			list = append(list, m.credentials)
		}
	}
	if len(list) == 0 {
		list = []credentials{{}}
	}
	return list, faults
}

// authEntry is one login of a Docker configuration file.
type authEntry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"` // base64 of user:password
	IdentityToken string `json:"identitytoken"`
}

func (a authEntry) login() (user, password string) {
	if a.IdentityToken != "" {
		return "", a.IdentityToken
	}
	if a.Password != "" {
		return a.Username, a.Password
	}
	raw, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return "", ""
	}
	user, password, _ = strings.Cut(string(raw), ":")
	return user, strings.TrimRight(password, "\x00")
}

// authsOf reads the logins of a secret, by the address they are for. The error
// says nothing of what stands in it.
func authsOf(s corev1.Secret) (entries map[string]authEntry, err error) {
	key := corev1.DockerConfigJsonKey
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]authEntry `json:"auths"`
		}
		err = json.Unmarshal(s.Data[key], &file)
		entries = file.Auths
	case corev1.SecretTypeDockercfg:
		key = corev1.DockerConfigKey
		err = json.Unmarshal(s.Data[key], &entries)
	default:
		return nil, fmt.Errorf("is of type %q, which holds no logins", printable(string(s.Type)))
	}
	if err != nil {
		return nil, fmt.Errorf("its %s is not a Docker configuration file", key)
	}
	return entries, nil
}

// covers says whether a login's address is for the image, and how closely, as
// Kubernetes does: [scheme://]host[:port][/path], where each label of the host
// may be a glob and the path is how the repository's name begins.
func covers(at, registry, repository string) (depth int, ok bool) {
	at = strings.TrimPrefix(strings.TrimPrefix(at, "https://"), "http://")
	host, prefix, _ := strings.Cut(at, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
	}
	if !hostMatches(host, registry) {
		return 0, false
	}
	switch version, rest, _ := strings.Cut(prefix, "/"); version {
	case "v1", "v2": // of the registry's API, as Docker writes it
		prefix = rest
	}
	if !strings.HasPrefix(repository, prefix) {
		return 0, false
	}
	return len(prefix), true
}

func hostMatches(pattern, host string) bool {
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if ok, err := path.Match(p[i], h[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// withFaults adds to an error why credentials could not be used.
func withFaults(err error, faults []string) error {
	if err == nil || len(faults) == 0 {
		return err
	}
	return fmt.Errorf("%s: %w", strings.Join(faults, "; "), err)
}

// secretless is an error without the passwords of the list: a registry may say
// to us again what we said to it.
func secretless(err error, list []credentials) error {
	var busy *busyError
	if err == nil || errors.As(err, &busy) {
		return err
	}
	text := err.Error()
	for _, c := range list {
		for _, secret := range []string{c.password, base64.StdEncoding.EncodeToString([]byte(c.user + ":" + c.password))} {
			if len(c.password) > 2 {
				text = strings.ReplaceAll(text, secret, "***")
			}
		}
	}
	if text == err.Error() {
		return err
	}
	for _, class := range []error{schema.ErrRefused, schema.ErrNotFound, schema.ErrUnavailable} {
		if errors.Is(err, class) {
			return flat("", errors.New(text), class)
		}
	}
	return errors.New(text)
}
