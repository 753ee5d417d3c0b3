package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

// dialWithin bounds one connection: on loopback there is an answer at once, or
// a listener that accepts nothing.
const dialWithin = 10 * time.Second

// Dial implements nodeagent.Forwarder: as with other runtimes it is loopback
// that is asked, so that what listens there alone is reached too.
func (r *Runtime) Dial(ctx context.Context, uid types.UID, port uint16) (net.Conn, error) {
	if err := checkUID(uid); err != nil {
		return nil, err
	}
	s, err := r.sandbox(uid)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, kv.StreamErrorf(schema.ErrNotFound, "the pod does not run")
	}
	ctx, cancel := within(ctx, dialWithin)
	defer cancel()
	if s.HostNetwork {
		return dialLoopback(ctx, port)
	}
	return dialIn(ctx, filepath.Join(r.podDir(uid), nsNet.name), port)
}

// dialIn connects inside the network namespace that is pinned at a path. A
// socket belongs to the namespace of the thread that made it, for ever.
func dialIn(ctx context.Context, path string, port uint16) (conn net.Conn, err error) {
	netns, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the pod's network namespace: %w: %w", err, schema.ErrUnavailable)
	}
	defer netns.Close()
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		if err = unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter the pod's network namespace: %w: %w", err, schema.ErrUnavailable)
			return
		}
		conn, err = dialLoopback(ctx, port)
	})
	<-done
	return conn, err
}

// dialLoopback tries both families and tells of the first. One literal address
// at a time: for more, or a name, the dialer would use other threads.
func dialLoopback(ctx context.Context, port uint16) (net.Conn, error) {
	var d net.Dialer
	var first error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
	}
	for inner := first; inner != nil; inner = errors.Unwrap(inner) {
		first = inner // connection refused, alone
	}
	return nil, kv.StreamErrorf(schema.ErrUnavailable, "failed to connect to localhost:%d inside the pod: %s", port, first)
}
