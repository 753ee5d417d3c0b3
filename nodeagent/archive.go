package nodeagent

import (
	"context"
	"io"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/nodeagent/pod"
	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// Archiver is what a Streamer may be besides, for people who copy files out of
// a running container and into it. Nothing of it needs a program in the image,
// and no link of the container leads out of its own root.
type Archiver interface {
	// ReadArchive writes the tar of what is at a path to w; see package
	// schema/archive for its form. Nothing is written when there is no such path:
	// then the error wraps schema.ErrNotFound.
	ReadArchive(ctx context.Context, id, path string, w io.Writer) error
	// WriteArchive writes what the tar holds below r.Path. A tar that would leave
	// it, or makes devices, is an error wrapping schema.ErrRefused.
	WriteArchive(ctx context.Context, id string, r kv.ArchiveRequest, tar io.Reader) error
}

func (a *agent) streamArchive(ctx context.Context, rt Archiver, r kv.StreamRequest, status *corev1.ContainerStatus, s *kv.Stream) error {
	if status.State.Running == nil {
		return kv.StreamErrorf(schema.ErrNotFound, "container %s of pod %s does not run: files are copied while it does", r.Container, r.Pod.Name)
	}
	id := pod.ContainerID(status.ContainerID)
	if !r.Archive.Write {
		return rt.ReadArchive(ctx, id, r.Archive.Path, channelWriter{ctx, s, kv.ChannelStdout})
	}
	if err := s.Accept(); err != nil {
		return err
	}
	err := rt.WriteArchive(ctx, id, *r.Archive, &channelReader{ctx: ctx, s: s})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return sendResult(ctx, s, 0, err)
}

// A channelReader reads what a stream brings.
type channelReader struct {
	ctx  context.Context
	s    *kv.Stream
	rest []byte
}

func (r *channelReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		var err error
		if _, r.rest, err = r.s.Recv(r.ctx); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
