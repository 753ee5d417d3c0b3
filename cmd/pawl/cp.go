package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/cmd/util/podcmd"
	utilcomp "k8s.io/kubectl/pkg/util/completion"
	"sigs.k8s.io/json"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/archive"
)

// newCp is the verb cp. The node packs and unpacks: the image needs no tar.
func newCp(c *cluster, f cmdutil.Factory, s genericiooptions.IOStreams) *cobra.Command {
	x := &copying{cluster: c, IOStreams: s}
	cmd := &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files and directories into containers and out of them",
		Long: `Copy files and directories into containers and out of them.

One of SOURCE and DESTINATION is [NAMESPACE/]POD:PATH. The image needs no program
for it, but the container must run. What is copied into a directory keeps its
name; a directory that is copied out of a container to one that exists is merged
with it. Links are copied as links, out of a container only where they lead
nowhere else; devices, pipes and sockets are left out.

In a container whose user is root, files get the owner and the mode that they
have here; else they belong to its user. Here they belong to you. Times are those
of the copy.`,
		Example: `  # Copy a file, or a directory with all that is in it, into a pod
  pawl cp page.html web-6d4cf56db6-x7x2z:/usr/share/nginx/html
  pawl cp ./site web-6d4cf56db6-x7x2z:/srv -c server

  # Copy it out of a pod of another namespace
  pawl cp shop/web-6d4cf56db6-x7x2z:/var/log/app ./app-logs`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 || strings.ContainsAny(toComplete, ":/.~") {
				return nil, cobra.ShellCompDirectiveDefault
			}
			pods := utilcomp.CompGetResource(f, "pod", toComplete)
			for i := range pods {
				pods[i] += ":"
			}
			return pods, cobra.ShellCompDirectiveNoSpace
		},
		RunE: interruptible(func(ctx context.Context, _ *cobra.Command, args []string) error { return x.run(ctx, args[0], args[1]) }),
	}
	cmd.Flags().StringVarP(&x.container, "container", "c", "", "The container; default: the one of the annotation kubectl.kubernetes.io/default-container, else the first")
	cmd.Flags().BoolVar(&x.noPreserve, "no-preserve", false, "Do not give files in the container the owner and the mode that they have here")
	return cmd
}

// A copying is one call of cp.
type copying struct {
	*cluster
	genericiooptions.IOStreams
	container  string
	noPreserve bool
}

// A place is where something is copied from or to.
type place struct {
	namespace, pod string // "": here
	path           string
}

func parsePlace(text string) (place, error) {
	wrong := fmt.Errorf("%q is neither a path nor [NAMESPACE/]POD:PATH", text)
	before, after, remote := strings.Cut(text, ":")
	switch {
	case text == "":
		return place{}, wrong
	case !remote || strings.HasPrefix(text, "/") || strings.HasPrefix(text, "."):
		return place{path: text}, nil // ./a:b is a file here
	}
	p := place{pod: before, path: after}
	if n, name, ok := strings.Cut(before, "/"); ok {
		p.namespace, p.pod = n, name
		if n == "" {
			return p, wrong
		}
	}
	if p.pod == "" || p.path == "" || strings.Contains(p.pod, "/") {
		return p, wrong
	}
	return p, nil
}

func (x *copying) run(ctx context.Context, source, destination string) error {
	from, err := parsePlace(source)
	if err != nil {
		return err
	}
	to, err := parsePlace(destination)
	if err != nil {
		return err
	}
	switch {
	case from.pod == "" && to.pod == "":
		return errors.New("one of SOURCE and DESTINATION must be in a pod: [NAMESPACE/]POD:PATH")
	case from.pod != "" && to.pod != "":
		return errors.New("one of SOURCE and DESTINATION must be here, and not in a pod")
	case from.pod != "":
		return x.fetch(ctx, from, to.path)
	}
	return x.store(ctx, from.path, to)
}

// ask sends one request for files of a container.
func (x *copying) ask(ctx context.Context, method string, p place, q url.Values, body io.Reader) (*http.Response, error) {
	config, err := x.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	if p.namespace == "" {
		p.namespace = x.namespace()
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	if q.Get("container") == "" {
		name, err := defaultContainer(ctx, client, config.Host, p)
		if err != nil {
			return nil, err
		}
		q.Set("container", name)
	}
	q.Set("path", p.path)
	u, err := url.Parse(config.Host)
	if err != nil {
		return nil, err
	}
	u = u.JoinPath("api/v1/namespaces", p.namespace, "pods", p.pod, "archive")
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/x-tar")
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	return nil, refusal(response)
}

// refusal is the server's error.
func refusal(r *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return err
	}
	s := metav1.Status{}
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &s); err != nil || s.Status != metav1.StatusFailure {
		return fmt.Errorf("the server answers %s", r.Status)
	}
	return &apierrors.StatusError{ErrStatus: s}
}

// defaultContainer is chosen as exec does.
func defaultContainer(ctx context.Context, client *http.Client, host string, p place) (string, error) {
	u, err := url.JoinPath(host, "api/v1/namespaces", p.namespace, "pods", p.pod)
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return "", err
	}
	r.Header.Set("Accept", "application/json")
	response, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", refusal(response)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	pod := corev1.Pod{}
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &pod); err != nil {
		return "", err
	}
	c, err := podcmd.FindOrDefaultContainerByName(&pod, "", true, io.Discard)
	if err != nil {
		return "", err
	}
	return c.Name, nil
}

// store copies what is here into a container.
func (x *copying) store(ctx context.Context, from string, to place) error {
	whole, err := filepath.Abs(from)
	if err != nil {
		return err
	}
	base := filepath.Base(whole)
	if b := filepath.Base(from); b == "." || whole == "/" {
		base = "" // what is in it, not itself
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	f.Close()
	q := url.Values{"container": {x.container}, "base": {base}}
	if x.noPreserve {
		q.Set("noPreserve", "true")
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		p := &packer{Writer: archive.NewWriter(w), warn: x.warn}
		err := p.pack(ctx, whole)
		if err == nil {
			err = p.Close()
		}
		w.CloseWithError(err)
		packed <- err
	}()
	response, err := x.ask(ctx, http.MethodPost, to, q, r)
	r.CloseWithError(io.ErrClosedPipe) // an answer means that no more is read
	fault := <-packed
	if err == nil {
		response.Body.Close()
	}
	if fault != nil && !errors.Is(fault, io.ErrClosedPipe) {
		return fault // what failed here, and not that the server heard half of it
	}
	return err
}

func (x *copying) warn(text string) { fmt.Fprintf(x.ErrOut, "warning: %s\n", text) }

// fetch copies what is in a container to here.
func (x *copying) fetch(ctx context.Context, from place, to string) error {
	response, err := x.ask(ctx, http.MethodGet, from, url.Values{"container": {x.container}}, nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	err = unpack(response.Body, to, path.Base(path.Clean("/"+from.path)), x.noPreserve, x.warn)
	var refused plain
	if errors.Is(err, schema.ErrRefused) && !errors.As(err, &refused) {
		return plain{strings.TrimSuffix(err.Error(), ": "+schema.ErrRefused.Error()), schema.ErrRefused}
	}
	return err
}
