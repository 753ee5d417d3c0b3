package reconciler

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// On a loopback address the door speaks HTTP with and without TLS on one port:
// git and pawl do without, kubectl sends its token over TLS alone. The first byte
// of a connection tells them apart: a TLS handshake begins with 22, a request
// with a letter.

const tlsHandshake = 22 // the type of a record (RFC 8446, 5.1)

// An eitherListener hands out connections that find out by themselves.
type eitherListener struct {
	net.Listener
	secured *tls.Config
}

func (l eitherListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eitherConn{Conn: conn, secured: l.secured}, nil
}

// An eitherConn is a connection before its first byte. Nothing is written to one
// before: a server speaks second.
type eitherConn struct {
	net.Conn
	secured *tls.Config

	once  sync.Once
	inner atomic.Pointer[net.Conn] // as spoken to: the connection itself, or TLS over it; nil until it is known
	err   error                    // why it never will be
}

// find reads the first byte. A deadline set before holds for it too.
func (c *eitherConn) find() (net.Conn, error) {
	c.once.Do(func() {
		first := [1]byte{}
		if _, c.err = c.Conn.Read(first[:]); c.err != nil {
			return
		}
		var inner net.Conn = &prefixed{Conn: c.Conn, first: first[:]}
		if first[0] == tlsHandshake {
			inner = tls.Server(inner, c.secured)
		}
		c.inner.Store(&inner)
	})
	if c.err != nil {
		return nil, c.err
	}
	return *c.inner.Load(), nil
}

func (c *eitherConn) Read(p []byte) (int, error) {
	inner, err := c.find()
	if err != nil {
		return 0, err
	}
	return inner.Read(p)
}

func (c *eitherConn) Write(p []byte) (int, error) {
	inner, err := c.find()
	if err != nil {
		return 0, err
	}
	return inner.Write(p)
}

// Close says goodbye as TLS does only where TLS is spoken. It does not wait for
// a first byte that may never come.
func (c *eitherConn) Close() error {
	if inner := c.inner.Load(); inner != nil {
		return (*inner).Close()
	}
	return c.Conn.Close()
}

// state is that of TLS; nil without.
func (c *eitherConn) state() *tls.ConnectionState {
	inner := c.inner.Load()
	if inner == nil {
		return nil
	}
	if secured, ok := (*inner).(*tls.Conn); ok {
		s := secured.ConnectionState()
		return &s
	}
	return nil
}

// A prefixed connection has its first byte read already.
type prefixed struct {
	net.Conn
	first []byte // until it is handed on; read by one goroutine at a time
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 && len(b) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

type eitherKey struct{}

// withConn is http.Server's ConnContext.
func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, eitherKey{}, conn)
}

// withTLS tells a request how it came, as http.Server does where it speaks TLS
// itself: who came with a client certificate is known by it.
func withTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(eitherKey{}).(*eitherConn); ok {
			r.TLS = c.state()
		}
		h.ServeHTTP(w, r)
	})
}
