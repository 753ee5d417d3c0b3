package containerd

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
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

// resolver finds images at their registry or its mirrors. The credentials go to
// the registry they are for and to nobody else.
func (s *imageStore) resolver(c credentials) remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{
		Hosts: func(host string) ([]docker.RegistryHost, error) { return s.hosts(host, c) },
	})
}

// hosts says where a registry's images are asked for, in order.
func (s *imageStore) hosts(registry string, c credentials) ([]docker.RegistryHost, error) {
	var hosts []docker.RegistryHost
	for _, mirror := range s.mirrors[registry] {
		u, err := parseMirror(mirror)
		if err != nil {
			return nil, err
		}
		own := credentials{registry: u.Host}
		if u.User != nil {
			own.user = u.User.Username()
			own.password, _ = u.User.Password()
		} else if c.registry == u.Host {
			own = c
		}
		hosts = append(hosts, s.host(u.Scheme, u.Host, path.Join("/", u.Path, "v2"), own))
	}
	scheme, host := "https", registry
	if loopback(registry) {
		scheme = "http"
	}
	if registry == "docker.io" {
		host = "registry-1.docker.io"
	}
	if c.registry != registry {
		c = credentials{}
	}
	return append(hosts, s.host(scheme, host, "/v2", c)), nil
}

func (s *imageStore) host(scheme, host, path string, c credentials) docker.RegistryHost {
	httpClient := &http.Client{Transport: s.transports.http}
	return docker.RegistryHost{
		Client: httpClient, Scheme: scheme, Host: host, Path: path,
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(httpClient), docker.WithAuthCreds(func(string) (string, string, error) {
			return c.user, c.password, nil
		})),
	}
}

// parseMirror reads a mirror's URL; plain HTTP only where it is written so.
func parseMirror(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("want a URL such as http://127.0.0.1:5000: %w", schema.ErrRefused)
	}
	return u, nil
}

// loopback says whether a registry is on this machine, where plain HTTP is safe.
func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

// credentialsFor lists what the secrets hold for an image, the closest match
// first; nobody's when they hold nothing. A secret that cannot be read holds
// nothing: another may do.
func credentialsFor(name string, secrets []corev1.Secret) []credentials {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return []credentials{{}}
	}
	registry, repository := reference.Domain(named), reference.Path(named)
	type match struct {
		credentials
		depth int
	}
	var found []match
	for _, s := range secrets {
		for at, entry := range authsOf(s) {
			depth, ok := covers(at, registry, repository)
			user, password := entry.login()
			if ok && password != "" {
				found = append(found, match{credentials{registry, user, password}, depth})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b match) int {
		if a.depth != b.depth {
			return b.depth - a.depth
		}
		return strings.Compare(a.user, b.user)
	})
	if len(found) == 0 {
		return []credentials{{}}
	}
	list := make([]credentials, 0, maxCredentials)
	for _, m := range found[:min(len(found), maxCredentials)] {
		list = append(list, m.credentials)
	}
	return list
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

func authsOf(s corev1.Secret) map[string]authEntry {
	var entries map[string]authEntry
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]authEntry `json:"auths"`
		}
		if json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &file) != nil {
			return nil
		}
		entries = file.Auths
	case corev1.SecretTypeDockercfg:
		if json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries) != nil {
			return nil
		}
	}
	return entries
}

// covers says whether a login's address is for the image, and how closely:
// [scheme://]host[:port][/path], where each label of the host may be a glob.
func covers(at, registry, repository string) (depth int, ok bool) {
	at = strings.TrimPrefix(strings.TrimPrefix(at, "https://"), "http://")
	host, prefix, _ := strings.Cut(at, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = "docker.io"
	}
	prefix = strings.Trim(prefix, "/")
	if prefix == "v1" || prefix == "v2" { // of the registry's API, as Docker writes it
		prefix = ""
	}
	if !hostMatches(host, registry) {
		return 0, false
	}
	if prefix == "" {
		return 0, true
	}
	if repository == prefix || strings.HasPrefix(repository, prefix+"/") {
		return len(prefix), true
	}
	return 0, false
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
