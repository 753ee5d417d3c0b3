package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// What a resolver reads at most (resolv.conf(5), and Kubernetes' own bounds).
const (
	maxNameservers = 3
	maxSearches    = 32
	maxSearchText  = 2048 // bytes
)

// resolvers is what a resolv.conf says. Of several search lines a resolver reads
// the last alone, so that texts must not be put together but what they say.
type resolvers struct {
	nameservers, searches, options []string
}

// parseResolvers takes what it knows and leaves out the rest, as resolvers do.
func parseResolvers(text []byte) resolvers {
	var r resolvers
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.nameservers = append(r.nameservers, f[1])
		case "search", "domain":
			r.searches = f[1:]
		case "options":
			r.options = append(r.options, f[1:]...)
		}
	}
	return r
}

// with adds a pod's dnsConfig: of what stands twice the first counts, but an
// option of the pod's goes before the node's of that name.
func (r resolvers) with(c *corev1.PodDNSConfig) resolvers {
	if c == nil {
		return r
	}
	merge := func(a, b []string) []string {
		for _, x := range b {
			if !slices.Contains(a, x) {
				a = append(a, x)
			}
		}
		return a
	}
	r.nameservers = merge(r.nameservers, c.Nameservers)
	r.searches = merge(r.searches, c.Searches)
	for _, o := range c.Options {
		r.options = slices.DeleteFunc(r.options, func(x string) bool {
			name, _, _ := strings.Cut(x, ":")
			return name == o.Name
		})
		option := o.Name
		if o.Value != nil && *o.Value != "" {
			option += ":" + *o.Value
		}
		r.options = append(r.options, option)
	}
	return r
}

func (r resolvers) file() []byte {
	var b bytes.Buffer
	for _, n := range r.nameservers[:min(len(r.nameservers), maxNameservers)] {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	var searches []string
	for _, s := range r.searches[:min(len(r.searches), maxSearches)] {
		if len(strings.Join(append(searches, s), " ")) <= maxSearchText {
			searches = append(searches, s)
		}
	}
	if len(searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(searches, " "))
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.Bytes()
}

// hostResolvers is the first file, unless it names a resolver on the host's own
// loopback, as systemd-resolved has it, which no pod reaches: then the second,
// where that resolver keeps the ones it asks.
func hostResolvers(file, behind string) ([]byte, error) {
	own, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(own)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" && strings.HasPrefix(f[1], "127.") {
			if asked, err := os.ReadFile(behind); err == nil {
				return asked, nil
			}
		}
	}
	return own, nil
}

// resolvConf is the host's, with the pod's dnsConfig; dnsPolicy None takes
// nothing of the host's.
func resolvConf(p *corev1.Pod) ([]byte, error) {
	var r resolvers
	if p.Spec.DNSPolicy != corev1.DNSNone {
		own, err := hostResolvers("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
		if err != nil {
			return nil, err
		}
		r = parseResolvers(own)
	}
	return r.with(p.Spec.DNSConfig).file(), nil
}
