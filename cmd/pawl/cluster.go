package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/scheme"

	"github.com/pawl-project/pawl/schema"
)

// A cluster is the one that flags, environment and context file name. It is the
// RESTClientGetter of kubectl's commands, and what Pawl's own verbs reach the
// server by. Nothing of a kubeconfig gets in here.
type cluster struct {
	env   func(string) string
	flags struct {
		context, namespace, timeout, server, tokenFile, caFile string
	}
	verbosity *flag.Flag // klog's -v
	door      door

	config    func() (*rest.Config, error) // the three are made once, when first asked for
	discovery func() (discovery.CachedDiscoveryInterface, error)
	mapper    func() (meta.RESTMapper, error)
}

var _ genericclioptions.RESTClientGetter = (*cluster)(nil)

// newCluster returns the cluster that the flags will name once they are parsed.
func newCluster(env func(string) string) *cluster {
	c := &cluster{env: env}
	c.config = sync.OnceValues(c.newConfig)
	c.discovery = sync.OnceValues(c.newDiscovery)
	c.mapper = sync.OnceValues(c.newMapper)
	return c
}

func (c *cluster) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.flags.context, "context", c.env("PAWL_CONTEXT"), "The context to use, one of those that pawl context lists; default: the current one")
	flags.StringVarP(&c.flags.namespace, "namespace", "n", "", "The namespace to work in; default: default")
	flags.StringVarP(&c.flags.server, "server", "s", "", "The server's URL, instead of the context's")
	flags.StringVar(&c.flags.tokenFile, "token-file", "", "A file that holds the token for the server, instead of the context's")
	flags.StringVar(&c.flags.caFile, "ca-file", "", "A PEM file with the CA of an https server's certificate, instead of the context's")
	flags.StringVar(&c.flags.timeout, "request-timeout", "0", "How long one request may take, such as 5s or 2m; 0: for ever")
	logging := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(logging)
	c.verbosity = logging.Lookup("v")
	flags.AddGoFlag(c.verbosity)
	flags.Lookup("v").Usage = "How much to log on standard error; 6 shows every request"
}

// silence hushes client-go, which says about a server that does not answer, five
// times, what tell says once. klog may be set once, before anything speaks.
var silence = sync.OnceFunc(func() { klog.SetLogger(klog.Logger{}) })

// prepare runs after the flags are parsed and before the command.
func (c *cluster) prepare(s genericiooptions.IOStreams) error {
	if c.verbosity.Value.String() == "0" {
		silence()
	}
	rest.SetDefaultWarningHandler(rest.NewWarningWriter(s.ErrOut, rest.WarningWriterOptions{
		Deduplicate: true, Color: printers.AllowsColorOutput(s.ErrOut),
	}))
	return nil
}

// ToRESTConfig implements genericclioptions.RESTClientGetter. The config is the caller's.
func (c *cluster) ToRESTConfig() (*rest.Config, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	return rest.CopyConfig(config), nil
}

// ToDiscoveryClient implements genericclioptions.RESTClientGetter.
func (c *cluster) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	return c.discovery()
}

// ToRESTMapper implements genericclioptions.RESTClientGetter.
func (c *cluster) ToRESTMapper() (meta.RESTMapper, error) { return c.mapper() }

// ToRawKubeConfigLoader implements genericclioptions.RESTClientGetter.
func (c *cluster) ToRawKubeConfigLoader() clientcmd.ClientConfig { return loader{c} }

// restClient reaches any path of the server; Get().AbsPath("/api/v1/pods").
func (c *cluster) restClient() (*rest.RESTClient, error) {
	config, err := c.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	return rest.UnversionedRESTClientFor(config)
}

// namespace is where namespaced objects are looked for.
func (c *cluster) namespace() string {
	if c.flags.namespace == "" {
		return "default"
	}
	return c.flags.namespace
}

func (c *cluster) newConfig() (*rest.Config, error) {
	x, err := c.context()
	if err != nil {
		return nil, err
	}
	timeout, err := clientcmd.ParseTimeout(c.flags.timeout)
	if err != nil {
		return nil, fmt.Errorf("--request-timeout %q is no time, such as 5s or 2m", c.flags.timeout)
	}
	config := &rest.Config{
		Host:      x.Server,
		UserAgent: "pawl/" + version,
		ContentConfig: rest.ContentConfig{ // what kubectl's commands expect to be set, such as exec
			GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
		},
		APIPath: "/api",
		QPS:     -1, // the server protects itself
		Timeout: timeout,
	}
	if strings.HasPrefix(x.Server, "https:") {
		config.CAFile = x.CAFile
	}
	if x.TokenFile != "" {
		token, err := os.ReadFile(x.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("the token of %s: %w", x.Server, err)
		}
		config.BearerToken = strings.TrimSpace(string(token))
	}
	config.Wrap(c.door.wrap)
	return config, nil
}

// context is the context that the flags name, with what they set instead.
func (c *cluster) context() (schema.ClientContext, error) {
	var x schema.ClientContext
	if c.flags.server == "" {
		var err error
		if x, err = c.contexts().find(c.flags.context); err != nil {
			return x, err
		}
	}
	if c.flags.server != "" {
		x.Server = strings.TrimSuffix(c.flags.server, "/")
		if !strings.Contains(x.Server, "://") {
			x.Server = "http://" + x.Server
		}
	}
	if c.flags.tokenFile != "" {
		x.TokenFile = c.flags.tokenFile
	}
	if c.flags.caFile != "" {
		x.CAFile = c.flags.caFile
	}
	return x, nil
}

func (c *cluster) newMapper() (meta.RESTMapper, error) {
	d, err := c.discovery()
	if err != nil {
		return nil, err
	}
	return restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(d), d, nil), nil
}

// A loader is what kubectl's commands take for a kubeconfig.
type loader struct{ c *cluster }

// RawConfig implements clientcmd.ClientConfig: there is no kubeconfig.
func (l loader) RawConfig() (clientcmdapi.Config, error) { return *clientcmdapi.NewConfig(), nil }

// ClientConfig implements clientcmd.ClientConfig.
func (l loader) ClientConfig() (*rest.Config, error) { return l.c.ToRESTConfig() }

// Namespace implements clientcmd.ClientConfig.
func (l loader) Namespace() (name string, explicit bool, err error) {
	return l.c.namespace(), l.c.flags.namespace != "", nil
}

// ConfigAccess implements clientcmd.ClientConfig: no command here writes a kubeconfig.
func (l loader) ConfigAccess() clientcmd.ConfigAccess { return noFiles{} }

// noFiles is the ConfigAccess of somebody who has no kubeconfig.
type noFiles struct{}

var errNoKubeconfig = errors.New("pawl has no kubeconfig")

func (noFiles) GetLoadingPrecedence() []string                   { return nil }
func (noFiles) GetStartingConfig() (*clientcmdapi.Config, error) { return nil, errNoKubeconfig }
func (noFiles) GetDefaultFilename() string                       { return "" }
func (noFiles) IsExplicitFile() bool                             { return false }
func (noFiles) GetExplicitFile() string                          { return "" }

// discoveryAge is how long what the server said of its kinds is believed. A
// kind that is not found is looked for again at once, whatever the age.
const discoveryAge = 10 * time.Minute
