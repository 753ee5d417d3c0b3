package natsserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/pawl-project/pawl/schema"
)

// A stream whose write failed, because the disk is full, takes no write any
// more, nor does it answer: nats-server wants to be restarted for that, with
// room on the disk. The keeper does so. What was acknowledged is on the disk;
// what was not is written anew by its writer, whose connection was lost.

const (
	// keeperPause is the time between looks at a store that is not well.
	keeperPause = time.Second
	// keeperCalm is the shortest time between two openings of the store.
	keeperCalm = 5 * time.Second
	// keeperDoubt is how long a store must be unwell: a stream that is being made
	// seems so for an instant, and one whose write failed stays so.
	keeperDoubt = time.Second
	// roomWanted is how much must fit onto the disk before the store is opened
	// again, in bytes: less would be full at once.
	roomWanted = 4 << 20
	// roomFile is written to find out whether there is room, and removed.
	roomFile = "room.tmp"
)

var errReopening = fmt.Errorf("the store is being opened again: %w", schema.ErrUnavailable)

// Trouble says why the store takes no writes; nil when it does, as far as is known.
func (s *Server) Trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// keep waits for the server to tell of errors, and mends what it can.
func (s *Server) keep(ctx context.Context) {
	defer close(s.kept)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.log.alarm:
		}
		for ctx.Err() == nil && s.stuck(ctx) {
			s.mend(ctx)
		}
	}
}

// stuck says whether something is wrong with the store, and a little later the
// same still.
func (s *Server) stuck(ctx context.Context) bool {
	err, was := s.fault(), ""
	for err != nil && err.Error() != was && ctx.Err() == nil {
		was = err.Error()
		pause(ctx, keeperDoubt)
		err = s.fault()
	}
	if err != nil && s.Trouble() == nil {
		s.o.Logger.Error("the store cannot be written; it is opened again once its disk has room", "error", err, "dir", s.o.Dir)
	}
	s.note(err)
	return err != nil
}

// fault is what is wrong with the store now.
func (s *Server) fault() error {
	ns := s.running()
	if ns == nil {
		return errReopening
	}
	if h := ns.Healthz(&server.HealthzOptions{}); h.Error != "" {
		return errors.New(h.Error)
	}
	return nil
}

// note keeps why the store is not well.
func (s *Server) note(trouble error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if trouble == nil && s.trouble != nil {
		s.o.Logger.Info("the store takes writes again")
	}
	s.trouble = trouble
}

// mend waits for room and opens the store again.
func (s *Server) mend(ctx context.Context) {
	if err := s.room(); err != nil {
		s.note(err)
		pause(ctx, keeperPause)
		return
	}
	if ns := s.running(); ns != nil {
		s.mu.Lock()
		s.server = nil
		s.mu.Unlock()
		shutdown(ns)
	}
	if err := s.open(ctx); err != nil && ctx.Err() == nil {
		s.o.Logger.Error("the store cannot be opened again, trying later", "error", err, "in", keeperCalm)
		s.note(err)
		pause(ctx, keeperCalm)
		return
	}
	if s.fault() == nil {
		s.note(nil)
		pause(ctx, keeperCalm)
	}
}

// room says whether roomWanted bytes fit onto the store's disk, by writing them.
func (s *Server) room() error {
	path := filepath.Join(s.o.Dir, roomFile)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	_, err = f.Write(make([]byte, roomWanted))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("no room for the store: %w", err)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
