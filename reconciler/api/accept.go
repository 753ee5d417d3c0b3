package api

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A media is a way to write objects down.
type media string

// The media there are.
const (
	jsonMedia  media = "application/json"
	yamlMedia  media = "application/yaml"
	protoMedia media = "application/vnd.kubernetes.protobuf"
)

// A shape is what of an object is written down.
type shape string

// The shapes there are. Discovery's shape is a list with everything in it.
const (
	wholeShape     shape = ""
	tableShape     shape = "Table"
	partialShape   shape = "PartialObjectMetadata"
	partialsShape  shape = "PartialObjectMetadataList"
	discoveryShape shape = "APIGroupDiscoveryList"
)

const (
	metaGroup      = "meta.k8s.io"
	discoveryGroup = "apidiscovery.k8s.io"
)

// A form is how an answer is written: what an Accept header asked for.
type form struct {
	media   media
	shape   shape
	version string // of the shape: v1, v1beta1, v2 …; "" for the whole object
	pretty  bool   // for a person's eyes; JSON only
}

// An offer is what one handler can do.
type offer struct {
	media  []media
	shapes func(s shape, group, version string) bool
}

var (
	everyMedia  = []media{jsonMedia, yamlMedia, protoMedia}
	streamMedia = []media{jsonMedia, protoMedia}
)

func wholeOnly(s shape, _, _ string) bool { return s == wholeShape }

// negotiate returns the first form that the caller accepts, by its preferences,
// among those on offer. The error is a 406 that names the media.
func negotiate(r *http.Request, o offer) (form, error) {
	clauses := acceptClauses(r.Header.Get("Accept"))
	for _, c := range clauses {
		f, ok := c.form(o)
		if !ok {
			continue
		}
		f.pretty = f.media == jsonMedia && wantsPretty(r)
		return f, nil
	}
	return form{}, notAcceptable(o, clauses)
}

// errorForm says in which form an error is written: the whole Status, in a medium
// the caller understands, and JSON for one that understands none.
func errorForm(r *http.Request) form {
	f := form{media: jsonMedia}
	for _, c := range acceptClauses(r.Header.Get("Accept")) {
		if m, ok := c.medium(everyMedia); ok {
			f.media = m
			break
		}
	}
	f.pretty = f.media == jsonMedia && wantsPretty(r)
	return f
}

// A clause is one alternative of an Accept header.
type clause struct {
	main, sub string // of main/sub
	params    map[string]string
	quality   float64
}

// acceptClauses reads an Accept header, the most wanted first. What cannot be
// read is left out; nothing at all means anything.
func acceptClauses(header string) []clause {
	if strings.TrimSpace(header) == "" {
		return []clause{{main: "*", sub: "*", quality: 1}}
	}
	var out []clause
	for part := range strings.SplitSeq(header, ",") {
		kind, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		c := clause{params: params, quality: 1}
		c.main, c.sub, _ = strings.Cut(kind, "/")
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			c.quality = q
		}
		if c.quality > 0 {
			out = append(out, c)
		}
	}
	slices.SortStableFunc(out, func(a, b clause) int {
		switch {
		case a.quality > b.quality:
			return -1
		case a.quality < b.quality:
			return 1
		}
		return 0
	})
	return out
}

func (c clause) form(o offer) (form, bool) {
	m, ok := c.medium(o.media)
	if !ok {
		return form{}, false
	}
	f := form{media: m, shape: shape(c.params["as"])}
	if f.shape != wholeShape {
		f.version = c.params["v"]
	}
	if f.shape == tableShape && m == protoMedia {
		return form{}, false // a Table's cells have no protobuf, as in Kubernetes
	}
	return f, o.shapes(f.shape, c.params["g"], f.version)
}

func (c clause) medium(offered []media) (media, bool) {
	want := media(c.main + "/" + c.sub)
	switch {
	case want == "*/*", want == "application/*":
		return offered[0], true
	case want == "text/yaml", want == "application/x-yaml":
		want = yamlMedia
	case want == "text/json":
		want = jsonMedia
	}
	return want, slices.Contains(offered, want)
}

func notAcceptable(o offer, clauses []clause) error {
	names := make([]string, len(o.media))
	for i, m := range o.media {
		names[i] = string(m)
	}
	for _, c := range clauses {
		if c.params["as"] == string(tableShape) && c.params["g"] == metaGroup {
			return statusError(http.StatusNotAcceptable, reasonNotAcceptable,
				"only the following media types are accepted when converting to "+metaGroup+"/"+c.params["v"]+", Kind=Table: "+strings.Join([]string{string(jsonMedia), string(yamlMedia)}, ", "))
		}
	}
	return statusError(http.StatusNotAcceptable, reasonNotAcceptable,
		"only the following media types are accepted: "+strings.Join(names, ", "))
}

// wantsPretty says whether a person reads: they said so, or use what people
// look at answers with.
func wantsPretty(r *http.Request) bool {
	if p := r.URL.RawQuery; strings.Contains(p, "pretty=") {
		v := r.URL.Query().Get("pretty")
		return v == "1" || v == "true"
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}
