package nodeagent

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// probeGRPC asks the gRPC health service. Kubernetes asks in the clear, so that
// is what a server that is probed speaks.
func probeGRPC(ctx context.Context, t probeTarget, a *corev1.GRPCAction) (err error) {
	addr, err := t.address("", intstr.FromInt32(a.Port))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent("kube-probe/1.36 pawl"), grpc.WithNoProxy())
	if err != nil {
		return fmt.Errorf("gRPC probe of %s: %w", addr, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return fmt.Errorf("gRPC probe: %s has no health service", addr)
	case err != nil:
		return fmt.Errorf("gRPC probe: %s", status.Convert(err).Message())
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return fmt.Errorf("gRPC probe: service %q is %s", service, answer.GetStatus())
	}
	return nil
}
