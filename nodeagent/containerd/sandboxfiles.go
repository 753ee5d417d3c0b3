package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostname is the pod's, as its containers see it.
func hostname(p *corev1.Pod) string {
	name := p.Name
	if p.Spec.Hostname != "" {
		name = p.Spec.Hostname
	}
	// The kernel takes 64 bytes; a pod's name may have more.
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name
}

// writeNameFiles makes the files of /etc that belong to the pod. They are
// written in place later, never replaced: containers hold mounts of them.
func writeNameFiles(dir string, p *corev1.Pod, s *sandboxRecord) error {
	resolv, err := resolvConf(p)
	if err != nil {
		return err
	}
	hosts, err := hostsFile(p, s)
	if err != nil {
		return err
	}
	name := hostname(p)
	if s.HostNetwork {
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "hosts"), hosts, 0o644),
		os.WriteFile(filepath.Join(dir, "hostname"), []byte(name+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "resolv.conf"), resolv, 0o644),
	)
}

func hostsFile(p *corev1.Pod, s *sandboxRecord) ([]byte, error) {
	var b bytes.Buffer
	if s.HostNetwork {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		b.Write(own)
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
		if s.IP != "" {
			name := hostname(p)
			if p.Spec.Subdomain != "" {
				name = fmt.Sprintf("%s.%s.%s.svc.cluster.local\t%s", name, p.Spec.Subdomain, p.Namespace, name)
			}
			fmt.Fprintf(&b, "%s\t%s\n", s.IP, name)
		}
	}
	for _, a := range p.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.Bytes(), nil
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
	var b bytes.Buffer
	if p.Spec.DNSPolicy != corev1.DNSNone {
		own, err := hostResolvers("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
		if err != nil {
			return nil, err
		}
		b.Write(own)
		if n := len(own); n > 0 && own[n-1] != '\n' {
			b.WriteByte('\n')
		}
	}
	c := p.Spec.DNSConfig
	if c == nil {
		return b.Bytes(), nil
	}
	for _, n := range c.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if len(c.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(c.Searches, " "))
	}
	for _, o := range c.Options {
		fmt.Fprintf(&b, "options %s", o.Name)
		if o.Value != nil {
			fmt.Fprintf(&b, ":%s", *o.Value)
		}
		b.WriteByte('\n')
	}
	return b.Bytes(), nil
}
