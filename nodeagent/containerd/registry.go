package containerd

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/pawl-project/pawl/schema"
)

// resolver finds images at their registry or its mirrors. The credentials go to
// the registry they are for and to nobody else. A token that the registry gives
// serves the whole pull, and is renewed when it expires.
func (s *imageStore) resolver(c credentials) remotes.Resolver {
	var mu sync.Mutex
	known := map[string][]docker.RegistryHost{}
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(registry string) ([]docker.RegistryHost, error) {
		mu.Lock()
		defer mu.Unlock()
		if known[registry] == nil {
			hosts, err := s.hosts(registry, c)
			if err != nil {
				return nil, err
			}
			known[registry] = hosts
		}
		return known[registry], nil
	}})
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
	tokens := &http.Client{Transport: tokenWire{s.wire, scheme == "https"}}
	return docker.RegistryHost{
		Client: &http.Client{Transport: s.wire}, Scheme: scheme, Host: host, Path: path,
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(tokens), docker.WithAuthCreds(func(string) (string, string, error) {
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
