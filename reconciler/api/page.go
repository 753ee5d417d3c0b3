package api

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// A token is where a list goes on, as Kubernetes writes it: the version of the
// first page, so that all pages show one moment, and the first key that may come.
type token struct {
	APIVersion string `json:"v"`
	Version    int64  `json:"rv"`    // -1: whatever there is now
	Start      string `json:"start"` // namespace/name and a zero byte
}

const tokenVersion = "meta.k8s.io/v1"

func (t token) encode() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings and a number
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func decodeToken(s string) (token, error) {
	var t token
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	switch {
	case err != nil:
		return t, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: %v", err))
	case t.APIVersion != tokenVersion:
		return t, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: continue key is not valid: server does not recognize this encoded version %v", t.APIVersion))
	case t.Version == 0 || t.Version < -1:
		return t, apierrors.NewBadRequest("invalid continue token: continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return t, apierrors.NewBadRequest("invalid continue token: continue key is not valid: encoded start key empty (version meta.k8s.io/v1)")
	}
	return t, nil
}

// startKey is what a token says of an object that was the last of its page.
func startKey(k schema.ObjectKey) string { return k.Namespace + "/" + k.Name + "\x00" }

// tooOldToContinue is what Kubernetes says when a token's version is forgotten.
// The answer has a token with which the list goes on all the same.
const tooOldToContinue = "The provided continue parameter is too old to display a consistent list result. " +
	"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
	"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."

// page is the objects that a list answers with, and what it says of itself.
func (q *request) page(o listOptions) ([]*cache.Item, metav1.ListMeta, error) {
	items, version, err := q.moment(o)
	if err != nil {
		return nil, metav1.ListMeta{}, err
	}
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(version, 10)}
	if !o.filter.everything() {
		kept := items[:0] // the slice is ours
		for _, i := range items {
			if o.filter.matches(i.Object()) {
				kept = append(kept, i)
			}
		}
		items = kept
	}
	// A list of any version comes from what is at hand, and whole.
	if o.Limit <= 0 || int64(len(items)) <= o.Limit || o.ResourceVersion == "0" && o.Continue == "" {
		return items, meta, nil
	}
	rest := int64(len(items)) - o.Limit
	items = items[:o.Limit]
	meta.Continue = token{tokenVersion, int64(version), startKey(items[len(items)-1].Key)}.encode()
	if o.filter.everything() {
		meta.RemainingItemCount = &rest
	}
	return items, meta, nil
}

// moment is all objects, from where a token says, at the version that is asked
// for. The slice is the caller's.
func (q *request) moment(o listOptions) ([]*cache.Item, uint64, error) {
	if o.Continue != "" {
		return q.goOn(o)
	}
	if o.exact() {
		items, err := q.at(o.version)
		if errors.Is(err, cache.ErrGone) {
			err = apierrors.NewResourceExpired("The resourceVersion for the provided list is too old.")
		}
		return items, o.version, err
	}
	if err := q.notOlderThan(o.ResourceVersion); err != nil {
		return nil, 0, err
	}
	items, version := q.Cache.List(q.res.kind, q.t.namespace)
	return items, version, nil
}

// exact says whether a list is to show the very moment of its version: so it is
// asked for, or it is a page and nothing else was said.
func (o listOptions) exact() bool {
	return o.ResourceVersionMatch == metav1.ResourceVersionMatchExact || o.ResourceVersionMatch == "" && o.Limit > 0 && o.version > 0
}

// goOn is what comes after the page that a token was given with.
func (q *request) goOn(o listOptions) ([]*cache.Item, uint64, error) {
	if o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return nil, 0, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	t, err := decodeToken(o.Continue)
	if err != nil {
		return nil, 0, err
	}
	var items []*cache.Item
	version := uint64(t.Version)
	if t.Version < 0 {
		items, version = q.Cache.List(q.res.kind, q.t.namespace)
	} else if items, err = q.at(version); err != nil {
		if !errors.Is(err, cache.ErrGone) {
			return nil, 0, err
		}
		expired := apierrors.NewResourceExpired(tooOldToContinue)
		expired.ErrStatus.Continue = token{tokenVersion, -1, t.Start}.encode()
		return nil, 0, expired
	}
	first := sort.Search(len(items), func(i int) bool { return after(items[i].Key, t.Start) })
	return items[first:], version, nil
}

// after says whether a key is at or behind the start of a token. Namespaces and
// names are compared one after the other, as lists are sorted.
func after(k schema.ObjectKey, start string) bool {
	namespace, name, _ := strings.Cut(start, "/")
	if k.Namespace != namespace {
		return k.Namespace > namespace
	}
	return k.Name >= name
}

// at is all objects as they were at a version: as they are, with what happened
// since undone. The error wraps cache.ErrGone when that is not known any more.
func (q *request) at(version uint64) ([]*cache.Item, error) {
	if err := q.notOlderThan(strconv.FormatUint(version, 10)); err != nil {
		return nil, err
	}
	items, now := q.Cache.List(q.res.kind, q.t.namespace)
	if version >= now {
		return items, nil
	}
	events, err := q.Cache.Between(q.res.kind, q.t.namespace, version, now)
	if err != nil || len(events) == 0 {
		return items, err
	}
	was := make(map[schema.ObjectKey]*cache.Item, len(items))
	for _, i := range items {
		was[i.Key] = i
	}
	for n := len(events) - 1; n >= 0; n-- {
		e := events[n]
		if e.Old == nil {
			delete(was, e.Item.Key)
			continue
		}
		was[e.Item.Key] = e.Old
	}
	items = items[:0]
	for _, i := range was {
		items = append(items, i)
	}
	sort.Slice(items, func(a, b int) bool { return items[a].Key.Less(items[b].Key) })
	return items, nil
}
