package kv

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/pawl-project/pawl/schema"
)

func FuzzDecodeUsage(f *testing.F) {
	f.Add([]byte(`{"node":"n1","time":"2026-11-21T12:00:00Z","window":15000000000,"cpu":1,"memory":2,"pods":[{"namespace":"a","name":"b","uid":"c","containers":[{"name":"d","cpu":3,"memory":4}],"ephemeralStorage":5}]}`))
	f.Add([]byte(`{"cpu":-1}`))
	f.Add([]byte(`{"pods":[{},{},{}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := DecodeUsage(data)
		if err != nil {
			if !errors.Is(err, schema.ErrRefused) {
				t.Errorf("error %v is no refusal", err)
			}
			return
		}
		if _, err := json.Marshal(u); err != nil && len(data) < 1000 {
			t.Logf("%v", err) // a year beyond 9999 cannot be written; the gateway refuses it
		}
	})
}

func TestUsageKey(t *testing.T) {
	if k := UsageKey("n1"); k != "usage.n1" || k == NodeLeaseKey("n1") {
		t.Error(k)
	}
}
