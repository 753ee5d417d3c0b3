package kv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/pawl-project/pawl/schema"
)

// Credentials are what a client shows to the server.
type Credentials struct {
	JWT  string // says who it is and what it may do
	Seed string // of the key that proves it: secret
}

// ReadCredsFile reads credentials as the nats CLI keeps them. The error wraps
// schema.ErrNotFound when there is no such file.
func ReadCredsFile(path string) (Credentials, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, fmt.Errorf("%w: %w", err, schema.ErrNotFound)
	}
	if err != nil {
		return Credentials{}, err
	}
	token, err := nkeys.ParseDecoratedJWT(text)
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials %s: %w", path, err)
	}
	pair, err := nkeys.ParseDecoratedNKey(text)
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials %s: %w", path, err)
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return Credentials{}, fmt.Errorf("credentials %s: %w", path, err)
	}
	return Credentials{JWT: token, Seed: string(seed)}, nil
}

// ConnOptions say where the server is and who connects.
type ConnOptions struct {
	URL       string                                         // not looked at when InProcess is set
	InProcess interface{ InProcessConn() (net.Conn, error) } // a server in this process; nil: URL

	Credentials Credentials // zero: none, for a server that asks for none
	Name        string      // shown by the server
	InboxPrefix string      // replies come below it; "": _INBOX
	CAFile      string      // PEM of the server's authority; "": the system's
	Logger      *slog.Logger
}

const (
	connectLimit     = 10 * time.Second
	reconnectFirst   = 20 * time.Millisecond
	reconnectLongest = 2 * time.Second
	// requestLimit bounds the wait for one answer of the server.
	requestLimit = 10 * time.Second
)

// A Conn is a connection that comes back by itself for as long as it is not closed.
type Conn struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	closed chan struct{} // closed when nats.go has given the connection up

	mu      sync.Mutex
	subs    map[*Reconnects]struct{}
	session context.Context // ends when the connection is lost; mu guards the three
	end     context.CancelCauseFunc
}

// errLost is why a request ended early.
var errLost = errors.New("connection to NATS lost")

// Connect connects, and fails when the server does not answer within ten
// seconds; after that a lost connection is sought for ever. The error wraps
// schema.ErrRefused when the server does not accept the credentials, else
// schema.ErrUnavailable.
func Connect(ctx context.Context, o ConnOptions) (*Conn, error) {
	log := o.Logger
	if log == nil {
		log = slog.Default().With("room", "kv")
	}
	c := &Conn{log: log.With("connection", o.Name), subs: map[*Reconnects]struct{}{}, closed: make(chan struct{})}
	c.session, c.end = context.WithCancelCause(context.Background())
	nc, err := c.dial(ctx, o)
	if err != nil {
		class := schema.ErrUnavailable
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			class = schema.ErrRefused
		}
		where := o.URL
		if o.InProcess != nil {
			where = "in this process"
		}
		return nil, fmt.Errorf("connect %s to NATS %s: %w: %w", o.Name, where, err, class)
	}
	c.nc = nc
	c.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(asyncWindow), jetstream.WithDefaultTimeout(requestLimit))
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("JetStream: %w", err)
	}
	return c, nil
}

func (c *Conn) dial(ctx context.Context, o ConnOptions) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(o.Name),
		nats.Timeout(connectLimit),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1),   // what is published while the connection is lost fails at once
		nats.IgnoreAuthErrorAbort(), // a server that starts may not know its accounts yet
		nats.PingInterval(20 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.lost(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { c.back() }),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
		nats.ErrorHandler(c.trouble),
	}
	if o.Credentials != (Credentials{}) {
		options = append(options, nats.UserJWTAndSeed(o.Credentials.JWT, o.Credentials.Seed))
	}
	if o.InboxPrefix != "" {
		options = append(options, nats.CustomInboxPrefix(o.InboxPrefix))
	}
	if o.CAFile != "" {
		options = append(options, nats.RootCAs(o.CAFile))
	}
	if o.InProcess != nil {
		options = append(options, nats.InProcessServer(o.InProcess))
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(o.URL, options...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		return r.nc, r.err
	case <-ctx.Done():
		go func() { // ends within connectLimit
			if r := <-done; r.err == nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// reconnectDelay grows with the attempts and is spread, so that a thousand
// clients do not come back in the same instant.
func reconnectDelay(attempts int) time.Duration {
	d := min(reconnectFirst<<min(attempts, 10), reconnectLongest)
	return d/2 + rand.N(d/2)
}

// Close closes the connection and waits until nothing of it runs any more.
func (c *Conn) Close() {
	c.nc.Close()
	<-c.closed
}

// Connected says whether the server is there now.
func (c *Conn) Connected() bool { return c.nc.IsConnected() }

// MaxPayload is the largest message the server takes, in bytes.
func (c *Conn) MaxPayload() int64 { return c.nc.MaxPayload() }

func (c *Conn) lost(err error) {
	if err != nil && !c.nc.IsClosed() {
		c.log.Warn("connection to NATS lost, seeking it", "error", err)
	}
	c.mu.Lock()
	c.end(errLost)
	c.mu.Unlock()
	c.tell()
}

func (c *Conn) back() {
	c.log.Info("connection to NATS is back")
	c.mu.Lock()
	c.session, c.end = context.WithCancelCause(context.Background())
	c.mu.Unlock()
	c.tell()
}

// trouble takes what nats.go cannot return to anybody.
func (c *Conn) trouble(_ *nats.Conn, sub *nats.Subscription, err error) {
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	if errors.Is(err, nats.ErrSlowConsumer) {
		c.log.Warn("messages dropped: too many at once", "subject", subject)
		return
	}
	c.log.Debug("NATS", "subject", subject, "error", err)
}

// whileConnected bounds a request by time and by the life of the connection:
// an answer to what was asked over a lost one never comes.
func (c *Conn) whileConnected(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	ctx, end := context.WithCancelCause(ctx)
	ctx, cancel := context.WithTimeout(ctx, limit)
	stop := context.AfterFunc(session, func() { end(errLost) })
	return ctx, func() {
		stop()
		cancel()
		end(nil)
	}
}

// Reconnects tells that the connection was lost or came back.
type Reconnects struct {
	C    <-chan struct{} // holds one token when something happened since it was read
	c    chan struct{}
	conn *Conn
}

// Reconnected returns news of the connection: C is signalled when it is lost
// and when it is back. Close it when done.
func (c *Conn) Reconnected() *Reconnects {
	ch := make(chan struct{}, 1)
	r := &Reconnects{C: ch, c: ch, conn: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[r] = struct{}{}
	return r
}

// Close ends the news.
func (r *Reconnects) Close() {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()
	delete(r.conn.subs, r)
}

func (c *Conn) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r := range c.subs {
		signal(r.c)
	}
}

// signal puts a token into a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// unavailable classifies an error of nats.go.
func unavailable(err error) error {
	if err == nil || errors.Is(err, schema.ErrConflict) || errors.Is(err, schema.ErrUnavailable) || errors.Is(err, schema.ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w", err, schema.ErrUnavailable)
}
