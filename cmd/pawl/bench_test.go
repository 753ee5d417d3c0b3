package main

import "testing"

// BenchmarkGetPods is one `pawl get pods` from its start to its end, against a
// server that knows the answer. The process is the tests' binary, which starts
// as pawl does.
func BenchmarkGetPods(b *testing.B) {
	s := unstarted()
	s.start(b)
	s.on("GET /api/v1/namespaces/default/pods", podTable)
	d := newDesk(b, s.URL)
	d.process("get pods") // discovery is kept from here on
	for b.Loop() {
		if out, errs, code := d.process("get pods"); code != 0 {
			b.Fatalf("%s%s", out, errs)
		}
	}
}
