package reconciler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// serve answers on address until ctx is done, then lets requests end for a
// moment. With plain it speaks HTTP/1.1 with and without TLS, else HTTP over TLS
// alone. An answer may take for ever, as that to a watch does: it is the handlers
// that know for how long they wait for a client.
func serve(ctx context.Context, address string, h http.Handler, secured *tls.Config, plain bool, log *slog.Logger) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w; --http chooses another address", err)
	}
	if !plain {
		return serveOn(ctx, listener, newServer(h, secured, mostConnections, log))
	}
	server := newServer(withTLS(h), nil, mostConnections, log)
	know := server.ConnContext
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context { return withConn(know(ctx, conn), conn) }
	return serveOn(ctx, eitherListener{listener, secured}, server)
}

func newServer(h http.Handler, secured *tls.Config, connections int, log *slog.Logger) *http.Server {
	open := newConnections(connections)
	return &http.Server{
		Handler:           inTime(h, bodyTakes),
		TLSConfig:         secured,
		ReadHeaderTimeout: 10 * time.Second, // and for the TLS handshake
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnState:         open.changed,
		ConnContext:       open.know,
		// What clients do wrong is nothing that an operator must know of.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// bodyTakes is how long a request's body may take to come, unless its handler
// gives it another time, as those of Git's packs and of files do: a connection
// counts as busy as long as a body is waited for.
const bodyTakes = 30 * time.Second

// inTime gives the body of each request its time, whether or not h reads it:
// what h leaves, the server reads.
func inTime(h http.Handler, takes time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			control := http.NewResponseController(w)
			if control.SetReadDeadline(time.Now().Add(takes)) == nil {
				r.Body = &timedBody{r.Body, control}
			}
		}
		h.ServeHTTP(w, r)
	})
}

// A timedBody takes the deadline away when all has come: the answer may take
// longer.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{}) //nolint:errcheck // the connection is gone then
	}
	return n, err
}

func serveOn(ctx context.Context, listener net.Listener, server *http.Server) error {
	// Watches end with the daemon at once; what must be finished, as a push must,
	// does not look at its request's context.
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	done := make(chan error, 1)
	go func() {
		if server.TLSConfig == nil {
			done <- server.Serve(listener)
		} else {
			done <- server.ServeTLS(listener, "", "") // with HTTP/2
		}
	}()
	select {
	case err := <-done:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	err := server.Shutdown(grace)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("shut down HTTP: %w", err)
	}
	err = server.Close() // what did not end in time
	if ended := <-done; !errors.Is(ended, http.ErrServerClosed) {
		return errors.Join(ended, err)
	}
	return err
}
