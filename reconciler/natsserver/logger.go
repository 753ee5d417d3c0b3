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

	mu    sync.Mutex
	first string // fatal error
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

// Errorf tells of an error.
func (l *logger) Errorf(format string, v ...any) { l.log.Error(fmt.Sprintf(format, v...)) }

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
