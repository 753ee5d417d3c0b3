package access

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Guard lets only known users through to next, each in the request's context.
// Everybody else hears "Unauthorized" as a metav1.Status, whatever they asked
// for. What next sees of the request no longer holds the credential.
func (a *Access) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, known := UserFrom(r.Context()); known {
			next.ServeHTTP(w, r) // behind another Guard
			return
		}
		c, found := a.identify(r)
		if found == right {
			a.admit(next, w, r, c)
			return
		}
		dontListen(w, r)
		switch {
		case found == unknown:
			w.Header().Set("Retry-After", "1")
			WriteStatus(w, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "the server does not know the pods yet, try again")
			return
		case found == wrong && !a.hold(r):
			tooMany(w)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="pawl"`)
		WriteStatus(w, http.StatusUnauthorized, metav1.StatusReasonUnauthorized, "Unauthorized")
	})
}

// Allow lets only those through who may do what a request for its path, and not
// for a resource, asks; it stands behind Guard. The others hear why not.
func Allow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := UserFrom(r.Context())
		if ok, why := u.May(pathAttributes(r)); !ok {
			WriteStatus(w, http.StatusForbidden, metav1.StatusReasonForbidden, "forbidden: "+why)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Git asks the same in Git's way: a 401 makes it ask its user for a name, which
// is not looked at, and a password, which is the token. Only administrators pass:
// a repository may hold what a viewer does not see.
func (a *Access) Git(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, found := a.identify(r)
		if found != right {
			dontListen(w, r)
		}
		switch {
		case found == right && c.user.Role == Admin:
			a.admit(next, w, r, c)
		case found == right:
			http.Error(w, "the repository is open to the role admin only", http.StatusForbidden)
		case found == unknown:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the server does not know the pods yet, try again", http.StatusServiceUnavailable)
		case found == wrong && !a.hold(r):
			w.Header().Set("Retry-After", retryAfter)
			http.Error(w, "too many wrong attempts, try again later", http.StatusTooManyRequests)
		default:
			w.Header().Set("WWW-Authenticate", `Basic realm="pawl"`)
			http.Error(w, "the token is wanted: as Bearer, or as the password of any user", http.StatusUnauthorized)
		}
	})
}

// strangersBody is how long the body of a request that is refused may take to
// come. The server waits for it before it answers, so that the answer is read.
const strangersBody = time.Second

// dontListen bounds the wait for a body that nobody will read.
func dontListen(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 {
		return
	}
	// A writer without deadlines, as in tests, does without.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangersBody)) //nolint:errcheck // see above
}

// lookAgain is how often the credential of a request that lasts is looked at.
const lookAgain = 10 * time.Second

// admit serves a request as those behind the door see it. Its context ends when
// the credential does, so that no watch or shell outlives a revoked token.
func (a *Access) admit(next http.Handler, w http.ResponseWriter, r *http.Request, c credential) {
	ctx := WithUser(r.Context(), c.user)
	if c.again != nil {
		var end func()
		ctx, end = a.whileGood(ctx, c)
		defer end()
	}
	r = r.WithContext(ctx)
	r.Header = r.Header.Clone()
	r.Header.Del("Authorization")
	next.ServeHTTP(w, r)
}

// whileGood derives a context that ends with the credential, or when end is called.
func (a *Access) whileGood(parent context.Context, c credential) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(parent)
	var mu sync.Mutex // until t is set
	var t *time.Timer
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(lookAgain, func() {
		if ctx.Err() != nil { // end came in between, so this is the last time
			return
		}
		if !c.still(a.o.Now()) {
			cancel()
			return
		}
		mu.Lock()
		defer mu.Unlock()
		t.Reset(lookAgain)
	})
	return ctx, func() { cancel(); t.Stop() }
}

// hold keeps back the answer to a wrong attempt when there were many from its
// address; false when there were so many that it is turned away.
func (a *Access) hold(r *http.Request) bool {
	wait, answer, log := a.wrong.wrong(r.RemoteAddr)
	if log > 0 {
		a.log.Warn("wrong credentials", "from", prefixOf(r.RemoteAddr).Addr(), "attempts", log)
	}
	if wait <= 0 || !answer {
		return answer
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-r.Context().Done():
	}
	return true
}

var retryAfter = strconv.Itoa(int(longestWait / time.Second))

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", retryAfter)
	WriteStatus(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "too many wrong attempts, try again later")
}

func pathAttributes(r *http.Request) Attributes {
	return Attributes{Verb: strings.ToLower(r.Method), Path: r.URL.Path}
}

// WriteStatus answers with a failure in Kubernetes' form.
func WriteStatus(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	body, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Message: message, Reason: reason, Code: int32(code),
	})
	if err != nil { // a Status can always be written
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache, private")
	w.WriteHeader(code)
	if _, err := w.Write(append(body, '\n')); err != nil {
		return // the caller went away
	}
}
