package nodeagent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	// maxProbeHeader bounds the head of an answer, in bytes. It comes from whatever
	// runs in the pod.
	maxProbeHeader = 64 << 10
	// maxInterim is how many interim answers (1xx) may come before the answer.
	maxInterim = 5
)

// probeDialer makes connections too short to be kept alive.
var probeDialer = net.Dialer{KeepAlive: -1}

// A singleExchange makes one connection for one request, so that a probe says
// whether a new connection works and leaves none open. Certificates are not
// looked at: a probe asks a pod by its address.
//
// It is an http.RoundTripper because the library's own, which is made for
// connections that are used again, starts goroutines and keeps tables for each: a
// full node that is probed every second would feel that.
type singleExchange struct{}

// RoundTrip implements http.RoundTripper. The body of the answer ends the
// connection when it is closed.
func (singleExchange) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx := r.Context()
	port, known := map[string]string{"http": "80", "https": "443"}[r.URL.Scheme]
	if !known {
		return nil, fmt.Errorf("unsupported protocol scheme %q", r.URL.Scheme) // of a redirect
	}
	if p := r.URL.Port(); p != "" {
		port = p
	}
	conn, err := probeDialer.DialContext(ctx, "tcp", net.JoinHostPort(r.URL.Hostname(), port))
	if err != nil {
		return nil, err
	}
	// Whatever waits on the connection ends with the request's time.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	end := func() error {
		stop()
		return conn.Close()
	}
	resp, err := exchange(ctx, conn, r)
	if err != nil {
		_ = end()
		return nil, whole(ctx, err)
	}
	resp.Body = &lastBody{ReadCloser: resp.Body, ctx: ctx, end: end}
	return resp, nil
}

func exchange(ctx context.Context, conn net.Conn, r *http.Request) (*http.Response, error) {
	if r.URL.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: r.URL.Hostname(), InsecureSkipVerify: true}) //nolint:gosec // as Kubernetes' probes
		if err := secure.HandshakeContext(ctx); err != nil {
			var record tls.RecordHeaderError
			if errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/" {
				return nil, http.ErrSchemeMismatch
			}
			return nil, err
		}
		conn = secure
	}
	last := *r // a RoundTripper changes nothing of what it was given
	last.Close = true
	var text bytes.Buffer
	if err := last.Write(&text); err != nil {
		return nil, err
	}
	if _, err := conn.Write(text.Bytes()); err != nil {
		return nil, err
	}
	return answer(conn, r)
}

// answer reads the head of the answer, past interim ones.
func answer(conn net.Conn, r *http.Request) (*http.Response, error) {
	head := &io.LimitedReader{R: conn, N: maxProbeHeader}
	in := bufio.NewReaderSize(head, 2<<10)
	if _, err := in.Peek(1); err != nil {
		return nil, err // nothing came: not an answer that is cut off
	}
	for range maxInterim {
		resp, err := http.ReadResponse(in, r)
		if head.N <= 0 && err != nil {
			return nil, fmt.Errorf("the answer's headers exceeded %d bytes", maxProbeHeader)
		}
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			head.N = 1 << 62 // who asked bounds the body
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d interim answers", maxInterim)
}

// whole is the error of an exchange: when its time ended, that is why it failed.
func whole(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A lastBody is the body of the only answer of a connection.
type lastBody struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // of the request that it answers
	end func() error
}

// Read implements io.Reader.
func (b *lastBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = whole(b.ctx, err)
	}
	return n, err
}

// Close ends the connection, whatever of the answer was read.
func (b *lastBody) Close() error { return b.end() }
