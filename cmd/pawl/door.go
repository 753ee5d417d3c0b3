package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// A door is where all requests go through. It remembers how the last one
// ended, because what kubectl's commands say about it is not for everybody.
type door struct {
	mu     sync.Mutex
	server string
	err    error // no answer, and why
	status int   // of the answer
	plain  bool  // the server wants TLS, and was spoken to without
}

// wrap is a transport.WrapperFunc.
func (d *door) wrap(next http.RoundTripper) http.RoundTripper {
	return knocker{door: d, next: next}
}

type knocker struct {
	door *door
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (k knocker) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := k.next.RoundTrip(r)
	k.door.mu.Lock()
	defer k.door.mu.Unlock()
	k.door.server = r.URL.Scheme + "://" + r.URL.Host
	k.door.err, k.door.status, k.door.plain = err, 0, false
	if err == nil {
		k.door.status = response.StatusCode
		// net/http's servers say so to somebody who forgot the s of https.
		k.door.plain = r.URL.Scheme == "http" && response.StatusCode == http.StatusBadRequest && response.Header.Get("Content-Type") == ""
	}
	return response, err
}

// tell prints why a command failed, in one plain line where the reason is the
// way to the server.
func (c *cluster) tell(w io.Writer, message string) {
	if plain := c.door.failure(); plain != "" {
		message = "pawl: " + plain
	} else if lostConnection.MatchString(message) {
		message = "pawl: the connection to " + c.door.server + " was lost"
	}
	message = strings.TrimRight(kubectlCommand.ReplaceAllString(message, "${1}pawl$2"), "\n")
	if message != "" {
		fmt.Fprintln(w, message)
	}
}

// kubectlCommand is how messages name a command of kubectl's. What else is called
// so in a message, such as a pod, keeps its name.
var kubectlCommand = regexp.MustCompile("(?m)(^|[\\s'\"`(])kubectl( [a-z])")

// lostConnection is how errors look of streams whose other end vanished.
var lostConnection = regexp.MustCompile(`^error: .*(unexpected EOF|close 1006|connection reset by peer|client connection lost)`)

// failure says in one line why the server did not answer, or did not know who
// asked; "" when it answered.
func (d *door) failure() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.status == http.StatusUnauthorized:
		return d.server + " does not know you: the token is none of its own. Is it the right context? See: pawl context"
	case d.plain:
		return d.server + " answers over https only. Is it the right context? See: pawl context"
	case d.err == nil || errors.Is(d.err, context.Canceled):
		return ""
	}
	if wrong := certificate(d.err); wrong != "" {
		return fmt.Sprintf("%s cannot be trusted (%s). Is it the right context? See: pawl context", d.server, wrong)
	}
	hint := "Is the cluster up?"
	if local(d.server) {
		hint += " Start it with: pawld up"
	}
	return fmt.Sprintf("no answer from %s (%s). %s", d.server, reason(d.err), hint)
}

// reason is the innermost reason of a failed request, in few words.
func reason(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host %q", dns.Name)
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.Is(err, context.DeadlineExceeded) || strings.HasSuffix(err.Error(), "net/http: request canceled"):
		return "timed out" // --request-timeout
	case errors.Is(err, io.EOF):
		return "it closed the connection"
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}

// certificate says what is wrong with the server's certificate, "" if nothing is.
func certificate(err error) string {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is of no CA known here"
	case errors.As(err, &host):
		return host.Error()
	case errors.As(err, &invalid):
		return invalid.Error()
	default:
		return ""
	}
}

// local says whether a server's URL is of this machine.
func local(server string) bool {
	u, err := url.Parse(server)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// A hush is a stream for remarks of commands that go on although the server
// does not answer: what they conclude from that is wrong, and tell says it better.
type hush struct {
	door *door
	io.Writer
}

// Write implements io.Writer.
func (h hush) Write(text []byte) (int, error) {
	if h.door.failure() != "" {
		return len(text), nil
	}
	return h.Writer.Write(text)
}
