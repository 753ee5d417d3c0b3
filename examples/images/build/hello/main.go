// Command hello is the web server of Pawl's examples and tests. It says who it
// is, and misbehaves on request: it can fail its health check, exit with a code,
// use up its memory, write many log lines, or ignore the signal to stop.
//
// It uses only the standard library, because it is compiled from its text alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const usage = `hello serves:
  /            who it is: greeting, host name, version
  /hostname    the host name alone
  /env         the environment, sorted; /env?name=X one variable
  /file?path=  a file, or the names in a directory
  /ip          the caller's address
  /healthz     200, or 500 after POST /fail (until POST /heal)
  /exit?code=N ends the process with that code
  /oom         takes memory until it is killed
  /log?lines=N writes N lines to standard output
  /sleep?for=D answers after a while, such as 1s

Environment: PORT (8080), GREETING, VERSION (set by the image),
START_DELAY (a while before it listens), IGNORE_TERM=1 (it must be killed).
`

func main() {
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage) }
	flag.Parse()
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if os.Getenv("IGNORE_TERM") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if text := os.Getenv("START_DELAY"); text != "" {
		delay, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("START_DELAY: %w", err)
		}
		select {
		case <-time.After(delay):
		case <-stop:
			return nil
		}
	}
	address := ":" + or(os.Getenv("PORT"), "8080")
	server := &http.Server{Addr: address, Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	log.Printf("hello %s on %s listens on %s", version(), host, listener.Addr())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case s := <-stop:
		log.Printf("stopping: %s", s)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}
}

func version() string { return or(os.Getenv("VERSION"), "unknown") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func handler() http.Handler {
	var sick atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintf(w, "%s from %s, version %s\n", or(os.Getenv("GREETING"), "Hello"), host, version())
	})
	mux.HandleFunc("GET /hostname", func(w http.ResponseWriter, _ *http.Request) {
		host, _ := os.Hostname()
		fmt.Fprintln(w, host)
	})
	mux.HandleFunc("GET /env", env)
	mux.HandleFunc("GET /file", file)
	mux.HandleFunc("GET /ip", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, host)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			http.Error(w, "failing on request", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("POST /fail", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	mux.HandleFunc("POST /heal", func(http.ResponseWriter, *http.Request) { sick.Store(false) })
	mux.HandleFunc("/exit", exit)
	mux.HandleFunc("/oom", oom)
	mux.HandleFunc("/log", lines)
	mux.HandleFunc("GET /sleep", sleep)
	return mux
}

func env(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("name") {
		value, ok := os.LookupEnv(r.URL.Query().Get("name"))
		if !ok {
			http.Error(w, "not set", http.StatusNotFound)
			return
		}
		fmt.Fprintln(w, value)
		return
	}
	all := os.Environ()
	sort.Strings(all)
	fmt.Fprintln(w, strings.Join(all, "\n"))
}

func file(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Query().Get("path")
	if entries, err := os.ReadDir(path); err == nil {
		for _, e := range entries {
			fmt.Fprintln(w, e.Name())
		}
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s", text)
}

func exit(_ http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(or(r.URL.Query().Get("code"), "0"))
	if err != nil {
		code = 2
	}
	log.Printf("exiting on request with code %d", code)
	os.Exit(code)
}

// oom touches every page that it takes, or the kernel would not count them.
func oom(http.ResponseWriter, *http.Request) {
	log.Print("taking all memory on request")
	var held [][]byte
	for {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
		if len(held) > 1<<20 { // a tebibyte
			return
		}
	}
}

func lines(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(or(r.URL.Query().Get("lines"), "1"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for i := range n {
		log.Printf("line %d of %d", i+1, n)
	}
}

func sleep(w http.ResponseWriter, r *http.Request) {
	d, err := time.ParseDuration(or(r.URL.Query().Get("for"), "1s"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(d):
		fmt.Fprintln(w, "slept", d)
	case <-r.Context().Done():
	}
}
