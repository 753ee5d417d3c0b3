package access

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Wrong attempts are answered at this pace per address, after a burst. An
// answer that would be later than longestWait is refused at once instead, which
// bounds how many wait.
const (
	wrongPerSecond = 5
	wrongBurst     = 20
	longestWait    = 2 * time.Second
	tellAgain      = time.Minute // between two log lines about one address
	mostAddresses  = 4096
)

// attempts slow down those who try credentials. Only a wrong attempt is ever
// counted or delayed: behind one address there may be right callers too.
type attempts struct {
	now func() time.Time

	mu     sync.Mutex // guards what follows
	byAddr map[netip.Prefix]*list.Element
	order  *list.List // of *source; the one that was quiet for longest is in front
}

type source struct {
	addr   netip.Prefix
	limit  *rate.Limiter
	told   time.Time // when its attempts were logged last
	untold int       // attempts since then
}

func newAttempts(now func() time.Time) *attempts {
	return &attempts{now: now, byAddr: map[netip.Prefix]*list.Element{}, order: list.New()}
}

// wrong counts a wrong attempt. It says how long its answer shall be held back,
// or with false that it shall be turned away at once; and, when it is time to
// log, of how many attempts.
func (a *attempts) wrong(remote string) (wait time.Duration, answer bool, log int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	s := a.source(prefixOf(remote))
	s.untold++
	if s.told.IsZero() || now.Sub(s.told) >= tellAgain {
		log, s.told, s.untold = s.untold, now, 0
	}
	turn := s.limit.ReserveN(now, 1)
	wait = turn.DelayFrom(now)
	if wait > longestWait {
		turn.CancelAt(now)
		return 0, false, log
	}
	return wait, true, log
}

// source finds the address' entry, or makes one in the place of the quietest.
func (a *attempts) source(p netip.Prefix) *source {
	if e, ok := a.byAddr[p]; ok {
		a.order.MoveToBack(e)
		return e.Value.(*source)
	}
	if a.order.Len() >= mostAddresses {
		quiet := a.order.Remove(a.order.Front()).(*source)
		delete(a.byAddr, quiet.addr)
	}
	s := &source{addr: p, limit: rate.NewLimiter(wrongPerSecond, wrongBurst)}
	a.byAddr[p] = a.order.PushBack(s)
	return s
}

// prefixOf is what counts as one address: of IPv6 the network, because one
// machine has all addresses of its /64.
func prefixOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{} // all that cannot be told apart count as one
	}
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits)
	return p
}
