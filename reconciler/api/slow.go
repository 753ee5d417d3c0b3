package api

import (
	"net/http"
	"time"
)

// takes is how long a caller may take to read what was sent, before it is cut
// off: its goroutine, its connection and what it asked for are not kept for ever.
const takes = 30 * time.Second

// slowest is the pace in bytes per second at which a caller may read a large
// answer that is in memory as a whole.
const slowest = 128 << 10

// A bounded writer gives each write its time.
type bounded struct {
	http.ResponseWriter
	connection *http.ResponseController
}

// Write implements io.Writer.
func (w bounded) Write(b []byte) (int, error) {
	// A writer without deadlines, as in tests, does without.
	_ = w.connection.SetWriteDeadline(time.Now().Add(takes))
	return w.ResponseWriter.Write(b)
}

// done takes the limit away: the connection may carry further requests.
func (w bounded) done() { _ = w.connection.SetWriteDeadline(time.Time{}) }

// inTime gives the caller its time to read an answer of so many bytes, until the
// function it returns is called.
func inTime(w http.ResponseWriter, size int) (done func()) {
	x := bounded{w, http.NewResponseController(w)}
	_ = x.connection.SetWriteDeadline(time.Now().Add(takes + time.Duration(size/slowest)*time.Second)) // see Write
	return x.done
}
