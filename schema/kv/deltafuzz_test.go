package kv

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

// obeying is a handler that takes whatever comes.
type obeying struct{ deltas int }

func (o *obeying) Whole(Set)   {}
func (o *obeying) Delta(Delta) { o.deltas++ }

// What an agent is told, whatever it is, is obeyed once or refused, and moves
// its generation only by what was obeyed.
func FuzzDelta(f *testing.F) {
	f.Add([]byte("x 0 1\n{\"generation\":{\"epoch\":\"e\",\"number\":2},\"previous\":{\"epoch\":\"e\",\"number\":1},\"assignments\":[{\"node\":\"n1\",\"pod\":{\"metadata\":{\"name\":\"a\",\"uid\":\"u\"}}}]}"), false)
	f.Add([]byte(`{"generation":{"epoch":"e","number":2},"previous":{"epoch":"e","number":1},"remove":[{"kind":"pods","namespace":"default","name":"a"}]}`), true)
	f.Add([]byte(`{"generation":{"epoch":"e","number":9},"previous":{"epoch":"x","number":1}}`), true)
	f.Fuzz(func(t *testing.T, data []byte, framed bool) {
		messages := [][]byte{data}
		if framed {
			messages = frames(data)
		}
		h := &obeying{}
		r := receiver{agent: &Agent{log: slog.New(slog.DiscardHandler), have: Generation{Epoch: "e", Number: 1}}, handler: h}
		for _, m := range messages {
			r.take(m)
		}
		if moved := r.agent.have != (Generation{Epoch: "e", Number: 1}); moved && h.deltas == 0 {
			t.Errorf("at %+v without having obeyed anything", r.agent.have)
		}
	})
}

// A node's reports that are not pods, events or figures are refused.
func FuzzReports(f *testing.F) {
	f.Add([]byte(`[{"metadata":{"name":"a.1"},"involvedObject":{"kind":"Pod"},"reason":"Started","count":1}]`))
	f.Add([]byte(`{"node":{"cpuNanos":1},"pods":[{"uid":"u"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := DecodeEvents(data); err != nil && !errors.Is(err, schema.ErrRefused) {
			t.Error(err)
		}
		if _, err := DecodeUsage(data); err != nil && !errors.Is(err, schema.ErrRefused) {
			t.Error(err)
		}
	})
}
