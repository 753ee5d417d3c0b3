package reconciler

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// mostConnections is how many the door holds open, not counting those that
// were upgraded for exec; see connections. Those on which users are answered
// are bounded by doorRoom.
const mostConnections = 2048

// connections bounds how many connections there are. When there are too many,
// one is closed on which no known user is being answered: of the address that
// has most of those the one that has been so for longest, which may be the new
// one. Whoever opens many and says nothing, or only half of it, or nothing that
// a user would say, can keep nobody out but himself.
type connections struct {
	most int

	mu     sync.Mutex // guards what follows
	open   map[net.Conn]*connection
	strays map[netip.Addr]*list.List // of *connection, those stray for longest in front
}

// A connection is open. It is held while users are answered on it, over HTTP/2
// several at once, else it is a stray.
type connection struct {
	conn  net.Conn
	from  netip.Addr
	held  int
	stray *list.Element // nil while it is held
}

func newConnections(most int) *connections {
	return &connections{most: most, open: map[net.Conn]*connection{}, strays: map[netip.Addr]*list.List{}}
}

// changed is http.Server's ConnState.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		x := &connection{conn: conn, from: addressOf(conn)}
		c.open[conn] = x
		c.astray(x)
		if len(c.open) > c.most {
			c.cutOne()
		}
	case http.StateIdle:
		if x := c.open[conn]; x != nil && x.stray != nil {
			c.strays[x.from].MoveToBack(x.stray)
		}
	case http.StateActive: // until somebody is known to speak, it is nobody's
	default: // closed or hijacked
		if x := c.open[conn]; x != nil {
			c.forget(x)
		}
	}
}

// addressOf is what counts as one address: of IPv6 the network, because one
// machine has all addresses of its /64.
func addressOf(conn net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	addr := a.Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

func (c *connections) astray(x *connection) {
	l := c.strays[x.from]
	if l == nil {
		l = list.New()
		c.strays[x.from] = l
	}
	x.stray = l.PushBack(x)
}

func (c *connections) found(x *connection) {
	if x.stray == nil {
		return
	}
	l := c.strays[x.from]
	l.Remove(x.stray)
	if x.stray = nil; l.Len() == 0 {
		delete(c.strays, x.from)
	}
}

func (c *connections) forget(x *connection) {
	c.found(x)
	delete(c.open, x.conn)
}

func (c *connections) cutOne() {
	var most *list.List
	for _, l := range c.strays {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	x := most.Front().Value.(*connection) // the new one is a stray, so there is one
	c.forget(x)
	cut(x.conn)
}

type connectionKey struct{}

// A held connection is how a request finds its own.
type heldConnection struct {
	all  *connections
	conn net.Conn
}

// know is http.Server's ConnContext.
func (c *connections) know(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, heldConnection{c, conn})
}

// hold keeps a request's connection open until what it returns is called.
func hold(r *http.Request) (release func()) {
	h, ok := r.Context().Value(connectionKey{}).(heldConnection)
	if !ok { // not of a server, as in tests
		return func() {}
	}
	h.add(1)
	return func() { h.add(-1) }
}

func (h heldConnection) add(n int) {
	c := h.all
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.open[h.conn]
	if x == nil { // cut or hijacked meanwhile
		return
	}
	if x.held += n; x.held > 0 {
		c.found(x)
	} else if x.stray == nil {
		c.astray(x)
	}
}

// cut closes a connection at once: TLS would first say goodbye, and wait for it.
func cut(conn net.Conn) {
	switch c := conn.(type) {
	case *tls.Conn:
		conn = c.NetConn()
	case *eitherConn:
		conn = c.Conn
	}
	conn.Close()
}
