package stream

import (
	"net/http"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Attach answers GET (WebSocket) and POST (SPDY) pods/{name}/attach. It is an
// exec of no command: the same parameters, the same channels, the same ends.
func (s *Streams) Attach(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	s.process(w, r, k, "attaching to", func(e *kv.ExecRequest) (kv.StreamRequest, error) {
		return kv.StreamRequest{Verb: kv.StreamAttach, Attach: &kv.AttachRequest{Stdin: e.Stdin, Stdout: e.Stdout, Stderr: e.Stderr}}, nil
	})
}
