package containerd

import (
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/dialer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// namespace is containerd's namespace for everything of Pawl's.
const namespace = "pawl"

// dial makes a client. It does not connect: calls do, and wait for a daemon that
// is being started until their context ends. The library's own pause of a second
// before it connects again would be most of what a dead daemon costs.
func dial(address string) (*client.Client, error) {
	return client.New(address,
		client.WithDefaultNamespace(namespace),
		client.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: 5 * time.Second,
			}),
			grpc.WithContextDialer(dialer.ContextDialer),
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		}))
}
