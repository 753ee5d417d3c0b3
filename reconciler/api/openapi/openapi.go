// Package openapi serves the OpenAPI v3 documents of the kinds that Pawl has:
// Kubernetes' own for Kubernetes' groups, and one of Pawl's.
//
// They are embedded compressed and sent as they are to whoever accepts that,
// which is nearly everybody. It refuses to know which kinds are served: a
// document also describes those of its group that Pawl does not have.
package openapi

//go:generate go run ./generate

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

//go:embed documents/*.json.gz
var documents embed.FS

// A Handler answers /openapi/v3 and what is below. It is safe for concurrent use.
type Handler struct {
	index []byte
	files map[string]document // by path below /openapi/v3/
}

type document struct {
	file string // in documents, from where it is read each time: that is seldom
	hash string // of the file; part of the address, so that clients may keep it for good
}

// New returns a Handler. It panics when the embedded documents cannot be read,
// which no run can mend.
func New() *Handler {
	entries, err := documents.ReadDir("documents")
	if err != nil {
		panic(err)
	}
	h := &Handler{files: map[string]document{}}
	type address struct {
		URL string `json:"serverRelativeURL"`
	}
	index := struct {
		Paths map[string]address `json:"paths"`
	}{map[string]address{}}
	for _, e := range entries {
		file := "documents/" + e.Name()
		zipped, err := documents.ReadFile(file)
		if err != nil {
			panic(err)
		}
		path := strings.ReplaceAll(strings.TrimSuffix(e.Name(), ".json.gz"), "__", "/")
		d := document{file: file, hash: fmt.Sprintf("%X", sha512.Sum512(zipped))}
		h.files[path] = d
		index.Paths[path] = address{"/openapi/v3/" + path + "?hash=" + d.hash}
	}
	if h.index, err = json.Marshal(index); err != nil {
		panic(err)
	}
	return h
}

// ServeHTTP answers the index or one document.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Trim(strings.TrimPrefix(r.URL.Path, "/openapi/v3"), "/")
	w.Header().Set("Vary", "Accept")
	if !acceptsJSON(r.Header.Get("Accept")) {
		http.Error(w, "only application/json is served here", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if path == "" {
		write(w, r, h.index)
		return
	}
	d, ok := h.files[path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	d.serve(w, r)
}

func (d document) serve(w http.ResponseWriter, r *http.Request) {
	tag := `"` + d.hash + `"`
	w.Header().Set("ETag", tag)
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != d.hash {
			w.Header().Del("Content-Type")
			http.Redirect(w, r, r.URL.Path+"?hash="+d.hash, http.StatusMovedPermanently)
			return
		}
		w.Header().Set("Cache-Control", "public, immutable, max-age=31536000")
	}
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	zipped, err := documents.ReadFile(d.file)
	if err != nil {
		http.Error(w, "the document is missing", http.StatusInternalServerError)
		return
	}
	w.Header().Add("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		write(w, r, zipped)
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		http.Error(w, "the document is damaged", http.StatusInternalServerError)
		return
	}
	if r.Method != http.MethodHead {
		_, _ = io.Copy(w, z) // nobody is left to tell when the caller has gone
	}
}

func write(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // nobody is left to tell when the caller has gone
	}
}

// acceptsJSON says whether an Accept header has room for JSON. The protobuf form
// of these documents is not served: every client takes JSON as well.
func acceptsJSON(header string) bool {
	if header == "" {
		return true
	}
	for part := range strings.SplitSeq(header, ",") {
		switch kind, _, _ := mime.ParseMediaType(part); kind {
		case "application/json", "application/*", "*/*":
			return true
		}
	}
	return false
}
