package natsserver

import (
	"fmt"
	"log/slog"
	"sync"
)

// logger hands the server's words on. Its notices tell of routine: they are
// Pawl's debug level.
type logger struct {
	log *slog.Logger

	alarm chan struct{} // holds one token when the server told of an error

	mu    sync.Mutex
	first string // fatal error
}

func newLogger(log *slog.Logger) *logger { return &logger{log: log, alarm: make(chan struct{}, 1)} }

// forget makes the logger one of a server that has said nothing yet.
func (l *logger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.first = ""
}

func (l *logger) fatal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Noticef implements server.Logger, as the methods below do.
func (l *logger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }

// Warnf warns.
func (l *logger) Warnf(format string, v ...any) { l.log.Warn(fmt.Sprintf(format, v...)) }

// Errorf tells of an error, and has the keeper look whether the store is well.
func (l *logger) Errorf(format string, v ...any) {
	l.log.Error(fmt.Sprintf(format, v...))
	select {
	case l.alarm <- struct{}{}:
	default:
	}
}

// Debugf is not wanted: the server would count and format for it.
func (l *logger) Debugf(string, ...any) {}

// Tracef shows messages' content and is never wanted.
func (l *logger) Tracef(string, ...any) {}

// Fatalf remembers why the server does not start; Start returns it. With this
// logger the server does not exit the process.
func (l *logger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == "" {
		l.first = fmt.Sprintf(format, v...)
	}
}
