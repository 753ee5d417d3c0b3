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

	"github.com/pawl-project/pawl/schema"
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

// clusterDomain ends the names of everything in the cluster.
const clusterDomain = "cluster.local"

// fqdn is the pod's full name in the cluster's DNS; "" without a subdomain.
func fqdn(p *corev1.Pod) string {
	if p.Spec.Subdomain == "" {
		return ""
	}
	return fmt.Sprintf("%s.%s.%s.svc.%s", hostname(p), p.Spec.Subdomain, p.Namespace, clusterDomain)
}

// nodeName is what uname says in the pod: its hostname, or its full name where
// setHostnameAsFQDN asks for it. The error wraps schema.ErrRefused when the
// kernel does not take so long a name.
func nodeName(p *corev1.Pod) (string, error) {
	full := fqdn(p)
	if p.Spec.SetHostnameAsFQDN == nil || !*p.Spec.SetHostnameAsFQDN || full == "" {
		return hostname(p), nil
	}
	if len(full) > 64 {
		return "", fmt.Errorf("setHostnameAsFQDN: %s has %d characters, and the kernel takes 64: %w", full, len(full), schema.ErrRefused)
	}
	return full, nil
}

// seenName is what uname says in the pod's containers: of a pod in the node's
// network, the node's name. A name that the kernel did not take made no sandbox.
func seenName(p *corev1.Pod) string {
	var name string
	var err error
	if p.Spec.HostNetwork {
		name, err = os.Hostname()
	} else {
		name, err = nodeName(p)
	}
	if err != nil {
		return hostname(p)
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
	name, err := nodeName(p)
	if err != nil {
		return err
	}
	if s.HostNetwork {
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	for file, text := range map[string][]byte{"hosts": hosts, "hostname": []byte(name + "\n"), "resolv.conf": resolv} {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
		if s.Users == 0 {
			continue
		}
		if err := os.Chown(path, int(s.Users), int(s.Users)); err != nil {
			return err
		}
	}
	return nil
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
			if full := fqdn(p); full != "" {
				name = full + "\t" + name
			}
			fmt.Fprintf(&b, "%s\t%s\n", s.IP, name)
		}
	}
	for _, a := range p.Spec.HostAliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.Bytes(), nil
}
