package blame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/reconciler/gitsource"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/manifest"
)

const (
	defaultMost    = 1000
	defaultTimeout = 5 * time.Second
	maxOwners      = 10 // a chain of owners longer than this is a ring
)

// Options of New.
type Options struct {
	Dir  string // of the bare repository: the built-in one, or the mirror of a remote one
	Path string // the folder of the tree that is deployed; "": all of it

	Object func(schema.ObjectKey) (schema.Object, bool) // as the API shows it; read only
	// May says whether whoever asks may see an object, by an API's error; nil: yes.
	May func(r *http.Request, k schema.ObjectKey) error

	Most    int           // commits to look at; 0: 1,000
	Timeout time.Duration // for one answer; 0: 5 s
	Logger  *slog.Logger  // nil: slog.Default()
}

// A Blamer answers who gave an object its present form. It is the http.Handler
// for schema.BlamePath.
type Blamer struct {
	o Options
	// turn holds a token for each question that is being answered: a look into the
	// past costs time and memory.
	turn chan struct{}
}

// New returns a Blamer; it starts nothing and opens nothing.
func New(o Options) *Blamer {
	if o.Most <= 0 {
		o.Most = defaultMost
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Blamer{o: o, turn: make(chan struct{}, 2)}
}

// ServeHTTP implements http.Handler.
func (b *Blamer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := b.answer(r)
	if r.Context().Err() != nil {
		return
	}
	if err != nil {
		b.refuse(w, err)
		return
	}
	write(w, http.StatusOK, answer)
}

func (b *Blamer) answer(r *http.Request) (*schema.Blame, error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, apierrors.NewMethodNotSupported(k8sschema.GroupResource{Group: "pawl.dev", Resource: "blame"}, strings.ToLower(r.Method))
	}
	k, err := keyOf(r)
	if err != nil {
		return nil, err
	}
	if b.o.May != nil {
		if err := b.o.May(r, k); err != nil {
			return nil, err
		}
	}
	return b.Blame(r.Context(), k)
}

// keyOf reads the question.
func keyOf(r *http.Request) (schema.ObjectKey, error) {
	q := r.URL.Query()
	k := schema.ObjectKey{Kind: schema.Kind(q.Get("kind")), Namespace: q.Get("namespace"), Name: q.Get("name")}
	info, known := schema.LookupKind(k.Kind)
	switch {
	case !known:
		return k, apierrors.NewBadRequest(fmt.Sprintf("kind %q is not known; it is a lower-case plural, such as deployments", string(k.Kind)))
	case k.Name == "":
		return k, apierrors.NewBadRequest("name is needed")
	case info.Namespaced && k.Namespace == "":
		k.Namespace = metav1.NamespaceDefault
	case !info.Namespaced:
		k.Namespace = ""
	}
	return k, nil
}

// Blame answers for one object. Its errors are an API's, or wrap one of schema's.
func (b *Blamer) Blame(ctx context.Context, k schema.ObjectKey) (*schema.Blame, error) {
	o, owners, err := b.root(k)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.o.Timeout)
	defer cancel()
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, apierrors.NewTooManyRequests("others are asking who changed what; try again", 1)
	}
	answer := &schema.Blame{
		TypeMeta: metav1.TypeMeta{APIVersion: "pawl.dev/v1", Kind: "Blame"},
		Asked:    k.String(), Object: schema.KeyOf(o).String(), Owners: owners,
	}
	return answer, b.trace(ctx, o, answer)
}

// root follows owners up to the object that stands in Git.
func (b *Blamer) root(k schema.ObjectKey) (schema.Object, []string, error) {
	o, ok := b.o.Object(k)
	if !ok {
		return nil, nil, notFound(k, fmt.Sprintf("%s %q not found", k.Kind, k.Name))
	}
	var owners []string
	for at := k; len(owners) < maxOwners; {
		ref := metav1.GetControllerOf(o)
		if ref == nil {
			break
		}
		info, known := schema.LookupGVK(k8sschema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
		if !known {
			break
		}
		at = schema.ObjectKey{Kind: info.Kind, Namespace: at.Namespace, Name: ref.Name}
		if o, ok = b.o.Object(at); !ok {
			return nil, nil, notFound(k, fmt.Sprintf("%s was made for %s, which is not there any more", k, at))
		}
		owners = append(owners, at.String())
	}
	a := o.GetAnnotations()
	if a[schema.AnnotationRevision] == "" || a[schema.AnnotationSource] == "" {
		return nil, nil, notFound(k, k.String()+" does not stand in the repository: no commit made it")
	}
	return o, owners, nil
}

// trace fills the answer with what the repository tells.
func (b *Blamer) trace(ctx context.Context, o schema.Object, answer *schema.Blame) error {
	a := o.GetAnnotations()
	answer.Source = a[schema.AnnotationSource]
	file, line := cutSource(answer.Source)
	repository, err := gitsource.Open(b.o.Dir)
	if err != nil {
		return err
	}
	defer repository.Close()
	t := trace{repository: repository, key: schema.KeyOf(o), file: file}
	note, err := t.run(ctx, a[schema.AnnotationRevision], b.o.Path, b.o.Most)
	if err != nil {
		return err
	}
	answer.Note = note
	if manifest.IsCUE(file) {
		answer.Note = strings.TrimSpace("The object is made by CUE, so only the commits of its file are known. " + note)
	}
	answer.Created, answer.Fields = t.story.created, t.story.lines()
	if t.story.changed != nil {
		answer.Changed = *t.story.changed
	} else {
		answer.Changed = present(a, file, line)
	}
	return nil
}

// present is what the object itself says of the commit that gave it its form.
func present(annotations map[string]string, file string, line int) schema.BlameCommit {
	c := schema.BlameCommit{Commit: annotations[schema.AnnotationRevision], File: file, Line: line}
	author, email, ok := strings.Cut(annotations[schema.AnnotationAuthor], " <")
	if c.Author = author; ok {
		c.Email = strings.TrimSuffix(email, ">")
	}
	return c
}

// cutSource takes file:line apart.
func cutSource(source string) (file string, line int) {
	i := strings.LastIndexByte(source, ':')
	if i < 0 {
		return source, 0
	}
	if _, err := fmt.Sscanf(source[i+1:], "%d", &line); err != nil {
		return source, 0
	}
	return source[:i], line
}

func notFound(k schema.ObjectKey, text string) error {
	err := apierrors.NewNotFound(k8sschema.GroupResource{Resource: string(k.Kind)}, k.Name)
	err.ErrStatus.Message = text
	return err
}

// refuse answers with a Status.
func (b *Blamer) refuse(w http.ResponseWriter, err error) {
	var api *apierrors.StatusError
	switch {
	case errors.As(err, &api):
	case errors.Is(err, schema.ErrNotFound):
		api = apierrors.NewNotFound(k8sschema.GroupResource{}, "")
		api.ErrStatus.Message = "the repository does not hold what the object came from: " + err.Error()
	case errors.Is(err, context.DeadlineExceeded):
		api = apierrors.NewTimeoutError("the repository did not answer in time", 1)
	default:
		b.o.Logger.Error("nobody can be blamed", "error", err)
		api = apierrors.NewInternalError(err)
	}
	status := api.ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	write(w, int(status.Code), &status)
}

func write(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil { // texts and numbers always have a JSON form
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) //nolint:errcheck // there is nobody left to tell
}
