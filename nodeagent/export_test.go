package nodeagent

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Probe replaces the probes of an agent under test.
type Probe func(ctx context.Context, container string, p *corev1.Probe) error

// RunWithProbe is Run with other probes.
func RunWithProbe(ctx context.Context, cfg Config, probe Probe) error {
	a, err := newAgent(cfg)
	if err != nil {
		return err
	}
	if probe != nil {
		a.probe = func(ctx context.Context, t probeTarget, p *corev1.Probe) error {
			return probe(ctx, t.container.Name, p)
		}
	}
	return a.run(ctx)
}

// TokenTimes reads a token.
var TokenTimes = tokenTimes

// LoggedContainer says which attempt's log is meant.
var LoggedContainer = loggedContainer

// HostIP is this machine's address.
var HostIP = hostIP

// ProbePause is how long after one probe the next is made.
var ProbePause = probePause
