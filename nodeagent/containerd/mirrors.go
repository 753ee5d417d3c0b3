package containerd

import (
	"fmt"
	"strings"
)

// ParseMirrors reads pairs HOST=URL, as the flag --registry-mirror has them, into
// what Options wants; several URLs for one host are tried in order.
func ParseMirrors(pairs []string) (map[string][]string, error) {
	m := map[string][]string{}
	for _, p := range pairs {
		host, target, ok := strings.Cut(p, "=")
		if !ok || host == "" || !strings.Contains(target, "://") {
			return nil, fmt.Errorf("--registry-mirror %q: want HOST=URL, such as docker.io=http://127.0.0.1:5000", p)
		}
		m[host] = append(m[host], target)
	}
	return m, nil
}
