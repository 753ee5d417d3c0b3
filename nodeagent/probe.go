package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pawl-project/pawl/schema"
)

// A probeTarget is the container that is probed.
type probeTarget struct {
	ip        string // of the pod
	id        string // of the container
	container *corev1.Container
}

// A probeFunc probes once and returns nil for success, or why not.
type probeFunc func(ctx context.Context, t probeTarget, p *corev1.Probe) error

// newProber returns the probes of the Kubernetes kinds. Without an Execer a
// command cannot be asked: its probe fails and says so, rather than pass unasked.
func newProber(rt Runtime) probeFunc {
	exec, _ := rt.(Execer)
	return func(ctx context.Context, t probeTarget, p *corev1.Probe) error {
		switch {
		case p.HTTPGet != nil:
			return probeHTTP(ctx, t, p.HTTPGet)
		case p.TCPSocket != nil:
			return probeTCP(ctx, t, p.TCPSocket)
		case p.GRPC != nil:
			return probeGRPC(ctx, t, p.GRPC)
		case p.Exec != nil && exec != nil:
			return probeExec(ctx, exec, t, p.Exec)
		case p.Exec != nil:
			return fmt.Errorf("exec probes are not supported by this runtime: %w", schema.ErrRefused)
		default:
			return fmt.Errorf("probe of an unknown kind: %w", schema.ErrRefused)
		}
	}
}

func probeExec(ctx context.Context, exec Execer, t probeTarget, a *corev1.ExecAction) error {
	code, output, err := exec.Exec(ctx, t.id, a.Command)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("command exited with %d: %s", code, strings.TrimSpace(string(output)))
	}
	return nil
}

func probeTCP(ctx context.Context, t probeTarget, a *corev1.TCPSocketAction) error {
	addr, err := t.address(a.Host, a.Port)
	if err != nil {
		return err
	}
	c, err := probeDialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

func probeHTTP(ctx context.Context, t probeTarget, a *corev1.HTTPGetAction) error {
	r, err := t.request(ctx, a)
	if err != nil {
		return err
	}
	client := http.Client{Transport: singleExchange{}, CheckRedirect: sameHost}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 10<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d%s", resp.StatusCode, excerpt(body))
	}
	if resp.StatusCode >= 300 {
		return probeWarning("Probe terminated redirects, Response body: " + string(body))
	}
	return nil
}

// A probeWarning is a success that is worth an Event.
type probeWarning string

func (w probeWarning) Error() string { return string(w) }

// undecided says whether a probe could not be asked at all, which tells nothing
// of the container: its runtime is away, a port has no such name.
func undecided(err error) bool {
	return errors.Is(err, schema.ErrUnavailable) || errors.Is(err, schema.ErrRefused) || errors.Is(err, schema.ErrNotFound)
}

// hookHTTP is satisfied with any answer.
func hookHTTP(ctx context.Context, t probeTarget, a *corev1.HTTPGetAction) error {
	r, err := t.request(ctx, a)
	if err != nil {
		return err
	}
	client := http.Client{Transport: singleExchange{}, CheckRedirect: sameHost}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	return errors.Join(err, resp.Body.Close())
}

// sameHost follows redirects on the same host only; one elsewhere is the answer.
func sameHost(r *http.Request, via []*http.Request) error {
	if r.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

// excerpt is the first line of a body, for a message.
func excerpt(body []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if line == "" {
		return ""
	}
	return ": " + line[:min(len(line), 200)]
}

func (t probeTarget) request(ctx context.Context, a *corev1.HTTPGetAction) (*http.Request, error) {
	addr, err := t.address(a.Host, a.Port)
	if err != nil {
		return nil, err
	}
	path := "/" + strings.TrimPrefix(a.Path, "/")
	u, err := url.ParseRequestURI(path)
	if err != nil { // it is not escaped as it should be
		u = &url.URL{Path: path}
	}
	u.Scheme, u.Host = "http", addr
	if a.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range a.HTTPHeaders {
		if strings.EqualFold(h.Name, "Host") {
			r.Host = h.Value
			continue
		}
		r.Header.Add(h.Name, h.Value)
	}
	otherwise(r.Header, "User-Agent", "kube-probe/1.36 pawl")
	otherwise(r.Header, "Accept", "*/*")
	return r, nil
}

// otherwise sets a header that the manifest does not. One that it sets to nothing
// is not sent.
func otherwise(h http.Header, name, value string) {
	if _, ok := h[name]; !ok {
		h.Set(name, value)
	}
	if name != "User-Agent" && h.Get(name) == "" { // without one Go sends its own, with an empty one none
		h.Del(name)
	}
}

// address is host:port; the host is the pod's unless named, the port a number or
// the name of one of the container's.
func (t probeTarget) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = t.ip
	}
	if host == "" {
		return "", fmt.Errorf("the pod has no address: %w", schema.ErrUnavailable)
	}
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(port.IntValue())), nil
	}
	for _, p := range t.container.Ports {
		if p.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(p.ContainerPort))), nil
		}
	}
	if n, err := strconv.ParseUint(port.StrVal, 10, 16); err == nil {
		return net.JoinHostPort(host, strconv.FormatUint(n, 10)), nil
	}
	return "", fmt.Errorf("container %s has no port named %q: %w", t.container.Name, port.StrVal, schema.ErrRefused)
}

// seconds is a probe's setting, or its default when it is not set.
func seconds(n int32, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}
