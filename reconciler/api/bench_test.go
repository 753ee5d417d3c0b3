package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// tenThousand fills the cache as a cluster of 10,000 pods would.
func tenThousand(d *door) {
	for n := range 10_000 {
		d.put(podFixture(fmt.Sprintf("ns%02d", n%20), fmt.Sprintf("web-%05d", n), map[string]string{"app": "web"}))
	}
}

// fetch asks for a path and throws the answer away; it returns its size.
func (d *door) fetch(path, accept string) int64 {
	r, err := http.NewRequest(http.MethodGet, d.http.URL+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	r.Header.Set("Accept", accept)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	n, err := io.Copy(io.Discard, a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		d.t.Fatal(a.Status, err)
	}
	return n
}

func BenchmarkList10000(b *testing.B) {
	d := newDoor(b)
	tenThousand(d)
	for _, form := range []struct{ name, accept, path string }{
		{"json", string(jsonMedia), "/api/v1/pods"},
		{"protobuf", string(protoMedia), "/api/v1/pods"},
		{"table", "application/json;as=Table;g=meta.k8s.io;v=v1", "/api/v1/pods"},
		{"selected", string(jsonMedia), "/api/v1/pods?labelSelector=app%3Dweb&fieldSelector=spec.nodeName%3Dn1"},
		{"page of 500", string(jsonMedia), "/api/v1/pods?limit=500"},
	} {
		b.Run(form.name, func(b *testing.B) {
			d.t = b
			for b.Loop() {
				b.SetBytes(d.fetch(form.path, form.accept))
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	d := newDoor(b)
	tenThousand(d)
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		d.fetch("/api/v1/namespaces/ns07/pods/web-00007", string(jsonMedia))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
}

// BenchmarkWatchers measures from a change until the last of 1,000 watchers of
// one namespace has read it. The watchers run in the same process.
func BenchmarkWatchers1000(b *testing.B) {
	for _, accept := range []string{string(jsonMedia), string(protoMedia), "application/json;as=Table;g=meta.k8s.io;v=v1"} {
		b.Run(accept, func(b *testing.B) { benchmarkWatchers(b, accept) })
	}
}

func benchmarkWatchers(b *testing.B, accept string) {
	const watchers = 1000
	d := newDoor(b)
	version := d.put(podFixture("default", "web", nil))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: watchers}}
	var seen, gone sync.WaitGroup
	for range watchers {
		r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, fmt.Sprintf("%s/api/v1/namespaces/default/pods?watch=1&resourceVersion=%d", d.http.URL, version), nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer admin")
		r.Header.Set("Accept", accept)
		a, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		gone.Go(func() {
			defer a.Body.Close()
			in := bufio.NewReader(a.Body)
			for readEvent(in, accept) == nil {
				seen.Done()
			}
		})
	}
	n := 0
	for b.Loop() {
		n++
		p := podFixture("default", "web", map[string]string{"n": fmt.Sprint(n)})
		seen.Add(watchers)
		d.put(p)
		seen.Wait()
	}
	d.server.Close()
	gone.Wait()
}

// readEvent reads one event and throws it away.
func readEvent(in *bufio.Reader, accept string) error {
	if accept != string(protoMedia) {
		for {
			_, err := in.ReadSlice('\n')
			if !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
		}
	}
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return err
	}
	_, err := in.Discard(int(size[2])<<8 | int(size[3]))
	return err
}
