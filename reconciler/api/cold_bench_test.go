package api

import (
	"testing"
)

// BenchmarkColdList10000 is the first list of 10,000 pods, when nothing of them
// is encoded yet.
func BenchmarkColdList10000(b *testing.B) {
	d := newDoor(b)
	tenThousand(d)
	for _, form := range []struct{ name, accept string }{
		{"json", string(jsonMedia)},
		{"protobuf", string(protoMedia)},
		{"table", "application/json;as=Table;g=meta.k8s.io;v=v1"},
	} {
		b.Run(form.name, func(b *testing.B) {
			d.t = b
			for b.Loop() {
				b.StopTimer()
				for range 3 { // what nobody wanted for two rounds is dropped
					d.cache.Sweep()
				}
				b.StartTimer()
				b.SetBytes(d.fetch("/api/v1/pods", form.accept))
			}
		})
	}
}
