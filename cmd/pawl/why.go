package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	utilcomp "k8s.io/kubectl/pkg/util/completion"

	"github.com/pawl-project/pawl/cmd/pawl/why"
)

func newWhy(c *cluster, s genericiooptions.IOStreams) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "why TYPE/NAME",
		Short: "Say what an object waits for, since when, and when it is tried again",
		Long: `Say what an object waits for: the chain from the object to what holds it up,
since when, when it is tried again, and what a person can do about it where that
is plain. It says "nothing: it is as Git says" when there is nothing to wait for,
and tells of the newest commit when that was refused.`,
		Example: `  pawl why deployment/web
  pawl why pod web-6d4cf56db6-x7x2z -n shop
  pawl why deploy/web -o json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "" && output != "json" {
				return oneOf(output, "json")
			}
			answer, err := c.why(cmd.Context(), args, time.Now())
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(s.Out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(answer)
			}
			answer.Print(s.Out, time.Now())
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Print the answer as json")
	cmd.ValidArgsFunction = utilcomp.SpecifiedResourceTypeAndNameNoRepeatCompletionFunc(cmdutil.NewFactory(c), nil)
	return cmd
}

func (c *cluster) why(ctx context.Context, args []string, now time.Time) (why.Answer, error) {
	t, err := c.target(args)
	if err != nil {
		return why.Answer{}, err
	}
	client, err := c.restClient()
	if err != nil {
		return why.Answer{}, err
	}
	subject := why.Subject{Kind: t.Mapping.GroupVersionKind.Kind, Namespace: t.Namespace, Name: t.Name}
	subject.Object, err = t.get(ctx, client)
	if err != nil && !apierrors.IsNotFound(err) {
		return why.Answer{}, err
	}
	w, err := around(ctx, client, t)
	if err != nil {
		return why.Answer{}, err
	}
	return why.Explain(w, subject, now), nil
}

// around fetches what an answer about t is made from, all at once.
func around(ctx context.Context, client *rest.RESTClient, t target) (why.World, error) {
	var (
		w           why.World
		sets        appsv1.ReplicaSetList
		controllers corev1.ReplicationControllerList
		pods        corev1.PodList
		nodes       corev1.NodeList
		events      corev1.EventList
	)
	g, ctx := errgroup.WithContext(ctx)
	list := func(path string, into runtime.Object) {
		g.Go(func() error { return listInto(ctx, client, path, into) })
	}
	if t.Namespace != "" {
		in := "/namespaces/" + t.Namespace
		list("/apis/apps/v1"+in+"/replicasets", &sets)
		list("/api/v1"+in+"/replicationcontrollers", &controllers)
		list("/api/v1"+in+"/pods", &pods)
		list("/api/v1"+in+"/events", &events)
	}
	list("/api/v1/nodes", &nodes)
	g.Go(func() (err error) {
		w.Revisions, err = listRevisions(ctx, client)
		return err
	})
	if err := g.Wait(); err != nil {
		return w, err
	}
	w.ReplicaSets, w.Controllers = sets.Items, controllers.Items
	w.Pods, w.Nodes, w.Events = pods.Items, nodes.Items, events.Items
	return w, nil
}

// listInto fetches a list. One that the caller may not see, or that the server
// does not have, is empty: the answer then says less, and nothing wrong.
func listInto(ctx context.Context, client *rest.RESTClient, path string, into runtime.Object) error {
	body, err := fetch(ctx, client.Get().AbsPath(path))
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := decode(body, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func decode(body []byte, into any) error { return json.Unmarshal(body, into) }
