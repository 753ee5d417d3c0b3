package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pawl-project/pawl/schema"
)

const (
	// maxPayload is the largest message, in bytes. The node protocol chunks its
	// messages below the 1 MiB of a server with default settings; the room above
	// is for store values: an object of 1 MiB grows in JSON.
	maxPayload = 4 << 20
	// defaultMaxStore bounds what JetStream keeps on disk, in bytes.
	defaultMaxStore = 8 << 30
	// maxMemory bounds JetStream's memory storage, in bytes: leases live there, and
	// what the nodes say of their use.
	maxMemory = 320 << 20
	// startLimit is how long the server may take to read its store.
	startLimit = 60 * time.Second
)

// Options say where the server keeps its things and where it listens.
type Options struct {
	Dir     string // JetStream's files; may be wiped between runs: the store is rebuilt
	KeysDir string // keys of the accounts and of the store's encryption; 0700, files 0600
	// Listen is a loopback host:port, with port 0 for any free one; "" to serve
	// only InProcessConn.
	Listen   string
	MaxStore int64 // bytes JetStream may keep on disk; 0: 8 GiB
	Logger   *slog.Logger
}

// A Server is a running NATS server. When its disk was full it opens its store
// again by itself once there is room; clients then lose their connection for a
// moment, as they would when it is restarted.
type Server struct {
	o    Options // Listen names the port that is listened on
	keys *keys
	lock *os.File // holds Dir against a second server
	log  *logger
	stop context.CancelFunc // of the keeper
	kept chan struct{}      // closed when the keeper has ended

	mu      sync.Mutex
	server  *server.Server // nil while the store is opened again
	trouble error          // why the store takes no writes; nil: it does
}

// Start starts the server and returns once it serves. It starts clean when Dir
// is empty or missing. An error wraps schema.ErrRefused when Listen is not a
// loopback address, and schema.ErrUnavailable when another server holds Dir. A
// store that cannot be read whole is an error that names what is damaged;
// nothing is deleted.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.Default().With("room", "natsserver")
	}
	if _, _, err := listenAddress(o.Listen); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := start(ctx, o)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s.lock = lock
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	k, err := loadKeys(o.KeysDir)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, keys: k, log: newLogger(o.Logger), kept: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if o.Listen != "" { // whoever knows the address finds the server there again
		s.o.Listen = s.server.Addr().String()
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.keep(ctx)
	return s, nil
}

// open reads the store and serves it.
func (s *Server) open(ctx context.Context) error {
	a, err := newAccounts(s.keys)
	if err != nil {
		return err
	}
	if err := foreignAccounts(s.o.Dir, a.control); err != nil {
		return err
	}
	if err := putBack(s.o.Dir, a.control); err != nil { // of a start that was cut off
		return err
	}
	ns, missing, err := s.boot(ctx, a)
	if err == nil && len(missing) > 0 {
		if err := setAside(s.o, a.control, missing); err != nil {
			return err
		}
		ns, missing, err = s.boot(ctx, a)
	}
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return damaged(s.o.Dir, missing[0], seeLog)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = ns
	return nil
}

// boot starts the server, or says which streams that are on disk it does not
// recover; then it does not run, nor after an error.
func (s *Server) boot(ctx context.Context, a *accounts) (ns *server.Server, missing []string, err error) {
	if err := dropUnfinishedBlocks(s.o.Dir, a.control); err != nil {
		return nil, nil, err
	}
	if err := link(s.o.Dir, a.control); err != nil {
		return nil, nil, err
	}
	if ns, err = s.launch(ctx, a); err == nil {
		missing, err = unrecovered(ns, s.o.Dir, a.control)
	}
	if err == nil && len(missing) == 0 {
		err = unlink(s.o.Dir)
	}
	if err == nil && len(missing) == 0 {
		return ns, nil, nil
	}
	if ns != nil {
		shutdown(ns)
	}
	return nil, missing, errors.Join(err, putBack(s.o.Dir, a.control))
}

// launch starts the server; nil after an error.
func (s *Server) launch(ctx context.Context, a *accounts) (*server.Server, error) {
	host, port, err := listenAddress(s.o.Listen)
	if err != nil {
		return nil, err
	}
	ns, err := server.NewServer(serverOptions(s.o, host, port, s.keys, a))
	if err != nil {
		return nil, fmt.Errorf("nats server: %w", err)
	}
	s.log.forget()
	ns.SetLoggerV2(s.log, false, false, false)
	if err := await(ctx, ns, s.o.Listen, s.log); err != nil {
		shutdown(ns)
		return nil, err
	}
	return ns, nil
}

func serverOptions(o Options, host string, port int, k *keys, a *accounts) *server.Options {
	if o.MaxStore == 0 {
		o.MaxStore = defaultMaxStore
	}
	return &server.Options{
		ServerName: "pawl",
		Host:       host,
		Port:       port,
		DontListen: o.Listen == "",
		NoSigs:     true,
		MaxPayload: maxPayload,

		JetStream:          true,
		StoreDir:           o.Dir,
		SyncAlways:         true, // the default of 2 minutes loses what was acknowledged
		JetStreamCipher:    server.ChaCha,
		JetStreamKey:       k.store,
		JetStreamMaxStore:  o.MaxStore,
		JetStreamMaxMemory: maxMemory,

		TrustedOperators: a.operators,
		SystemAccount:    a.system,
		AccountResolver:  a.resolver,
	}
}

// await starts the server and waits until it serves.
func await(ctx context.Context, ns *server.Server, listen string, log *logger) error {
	started := make(chan struct{})
	go func() {
		ns.Start() // returns once everything is started, or after a fatal error
		close(started)
	}()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-started:
	case <-ctx.Done():
		ns.Shutdown()
		<-started
		return fmt.Errorf("nats server did not start: %w", context.Cause(ctx))
	}
	if fatal := log.fatal(); fatal != "" {
		return fmt.Errorf("nats server: %s", fatal)
	}
	if listen != "" && ns.Addr() == nil {
		return fmt.Errorf("nats server does not listen on %s", listen)
	}
	if !ns.JetStreamEnabled() {
		return errors.New("nats server: JetStream did not start")
	}
	return nil
}

// Close stops the server after what was acknowledged is on disk. Clients that
// are still connected lose their connection.
func (s *Server) Close() {
	s.stop()
	<-s.kept
	if ns := s.running(); ns != nil {
		shutdown(ns)
	}
	s.lock.Close()
}

func shutdown(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}

// running is the server; nil while the store is opened again.
func (s *Server) running() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// InProcessConn connects without a socket; it is what nats.InProcessServer wants.
func (s *Server) InProcessConn() (net.Conn, error) {
	ns := s.running()
	if ns == nil {
		return nil, errReopening
	}
	return ns.InProcessConn()
}

// ClientURL is where the server listens, nats://host:port; "" when nowhere.
func (s *Server) ClientURL() string {
	if s.o.Listen == "" {
		return ""
	}
	return "nats://" + s.o.Listen
}

// listenAddress splits a loopback address. nats-server means "any free port" by -1.
func listenAddress(listen string) (host string, port int, err error) {
	if listen == "" {
		return "127.0.0.1", 0, nil
	}
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("NATS address %q: want host:port: %w", listen, schema.ErrRefused)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, fmt.Errorf("NATS address %q: only a loopback address such as 127.0.0.1:7422 is served, because the server has no TLS yet; to reach it from elsewhere use ssh -L, or run a NATS cluster with TLS and point --nats at it: %w", listen, schema.ErrRefused)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("NATS address %q: port must be 0 to 65535: %w", listen, schema.ErrRefused)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}
