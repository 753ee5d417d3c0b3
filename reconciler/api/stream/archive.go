package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Archive answers GET and POST pods/{name}/archive?container=…&path=…: the tar of
// what is at a path in a container, or a tar that is to be written there. See
// schema/archive for its form. An answer that breaks off is no whole tar.
func (s *Streams) Archive(w http.ResponseWriter, r *http.Request, k schema.PodKey) {
	leave, err := s.enter(&s.archives)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer leave()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p, c, err := s.openArchive(ctx, r, k)
	if err != nil {
		s.refused(w, r, err)
		return
	}
	defer c.Close(nil)
	control := http.NewResponseController(w)
	_ = errors.Join(control.SetWriteDeadline(time.Time{}), control.SetReadDeadline(time.Time{})) //nolint:errcheck // a server without deadlines needs none taken away
	if r.Method == http.MethodPost {
		err = storeArchive(ctx, w, r, c)
	} else {
		l := &logCopy{pod: p, from: c, w: w, flush: control.Flush, kind: "application/x-tar"}
		if err = l.copy(ctx); err != nil && l.started && ctx.Err() == nil {
			s.o.Logger.Info("the tar of a container's files broke off", "pod", k, "error", err)
			panic(http.ErrAbortHandler)
		}
	}
	if err != nil && ctx.Err() == nil {
		writeError(w, nodeError(p, err))
	}
}

func (s *Streams) openArchive(ctx context.Context, r *http.Request, k schema.PodKey) (*corev1.Pod, Conn, error) {
	q := queryReader{query: r.URL.Query()}
	request := &kv.ArchiveRequest{
		Path: q.query.Get("path"), Base: q.query.Get("base"), NoPreserve: q.flag("noPreserve"), Write: r.Method == http.MethodPost,
	}
	if request.Path == "" {
		return nil, nil, apierrors.NewBadRequest("you must specify a path in the container")
	}
	if strings.ContainsRune(request.Base, '/') {
		return nil, nil, apierrors.NewBadRequest("base must be one name, not a path")
	}
	p, container, err := s.pod(k, q.query.Get("container"))
	if err != nil {
		return nil, nil, err
	}
	if p.Spec.NodeName == "" {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", p.Name))
	}
	c, err := s.open(ctx, p, kv.StreamRequest{Verb: kv.StreamArchive, Container: container, Archive: request})
	return p, c, err
}

// storeArchive sends the request's body to the node and answers how that ended.
func storeArchive(ctx context.Context, w http.ResponseWriter, r *http.Request, c Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sent := make(chan error, 1)
	go func() {
		err := sendAll(ctx, c, r.Body)
		if err != nil {
			cancel(err) // the node waits for a rest that does not come
		}
		sent <- err
	}()
	result, err := resultOf(ctx, c)
	if err == nil && result.Error != "" {
		err = &kv.StreamError{Text: result.Error, Class: kv.ClassNamed(result.Class)}
	}
	if err != nil {
		// The body is not read any further; its reader ends with the handler.
		c.Close(nil)
		return err
	}
	if err := <-sent; err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	text, err := json.Marshal(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess})
	if err == nil {
		_, err = w.Write(append(text, '\n'))
	}
	return err
}

// resultOf waits for the node's word on how it ended: the last there is, however
// the stream ends.
func resultOf(ctx context.Context, c Conn) (result kv.StreamResult, err error) {
	for {
		channel, data, err := c.Recv(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return result, errors.New("the node did not say how it ended")
		case err != nil:
			return result, err
		case channel == kv.ChannelResult:
			if err := json.Unmarshal(data, &result); err != nil {
				return result, fmt.Errorf("the node's word cannot be read: %w", err)
			}
			return result, nil
		}
	}
}
