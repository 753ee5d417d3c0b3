package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/schema"
)

func newKubeconfig() *cobra.Command {
	var i instance
	var user, role, server string
	ttl := lifetime(90 * 24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "kubeconfig --user NAME --role view|admin",
		Short: "Print a kubeconfig with a client certificate, for another machine",
		Long: `Print a kubeconfig with a new client certificate for a user, signed by the
cluster's authority, for kubectl and tools like it on another machine. The front
door must speak TLS: see --http and --tls of "pawld up".

A client certificate cannot be revoked: it is good until it ends (--ttl). For
access that can be taken back, see "pawld token".`,
		Example: `  pawld kubeconfig --user ada@example.org --role view >ada.kubeconfig
  pawld kubeconfig --user ci --role admin --ttl 1d --server https://pawl.example.org:7420`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settleInstance(cmd, &i); err != nil {
				return err
			}
			text, err := i.kubeconfigFor(user, role, server, time.Duration(ttl))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	f := cmd.Flags()
	i.dataFlags(f)
	f.StringVar(&user, "user", "", "name that the cluster calls the user by")
	f.StringVar(&role, "role", "", "view or admin")
	f.StringVar(&server, "server", "", "address of the front door for that machine, https://HOST:PORT (default: this machine's name and the port of --http)")
	f.Var(&ttl, "ttl", "how long the certificate is good for, such as 12h or 90d")
	return cmd
}

func (i *instance) kubeconfigFor(user, role, server string, ttl time.Duration) ([]byte, error) {
	r, err := access.ParseRole(role)
	if err != nil {
		return nil, fmt.Errorf("--role: %w", err)
	}
	d, err := i.readDoor()
	if err != nil {
		return nil, err
	}
	if server == "" {
		server = d.Remote
	}
	if server == "" {
		return nil, fmt.Errorf("the front door speaks plain HTTP on a loopback address, where client certificates do not work: start it with --tls or on another address, or give --server: %w", schema.ErrRefused)
	}
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("--server: want https://HOST:PORT: %w", schema.ErrRefused)
	}
	c, err := access.IssueClientCertificate(i.data, user, r, ttl, time.Now())
	if err != nil {
		return nil, err
	}
	cluster := map[string]any{"server": server}
	switch {
	case d.Remote == "": // as yet: with the cluster's own certificate, when it does
		cluster["certificate-authority-data"] = c.CA
	case d.CAFile != "":
		if cluster["certificate-authority-data"], err = os.ReadFile(d.CAFile); err != nil {
			return nil, err
		}
	}
	name := user + "@" + i.name()
	k := kubeconfig{}
	k.set("clusters", i.name(), "cluster", cluster)
	k.set("users", name, "user", map[string]any{"client-certificate-data": c.Cert, "client-key-data": c.Key})
	k.set("contexts", name, "context", map[string]any{"cluster": i.name(), "user": name})
	return k.text(name)
}

// A kubeconfig is the file that kubectl and tools like it read. It is kept as
// what it says and not as the fields known here, so that what a person has
// written into it stays.
type kubeconfig map[string]any

func readKubeconfig(file string) (kubeconfig, error) {
	k := kubeconfig{}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(text, &k); err != nil {
		return nil, fmt.Errorf("%s is no kubeconfig; mend or remove it", file) // the cause may repeat a credential
	}
	if k == nil { // an empty file
		k = kubeconfig{}
	}
	return k, nil
}

// entries is one of the three lists; what is no entry in it is passed over.
func (k kubeconfig) entries(list string) []any {
	l, _ := k[list].([]any)
	return l
}

func named(entry any, name string) bool {
	e, ok := entry.(map[string]any)
	return ok && e["name"] == name
}

// set puts an entry into a list in the place of the one of its name.
func (k kubeconfig) set(list, name, what string, value map[string]any) {
	entry := map[string]any{"name": name, what: value}
	l := k.entries(list)
	if i := slices.IndexFunc(l, func(e any) bool { return named(e, name) }); i >= 0 {
		l[i] = entry
		return
	}
	k[list] = append(l, entry)
}

// setContext makes a context of the kubeconfig from one of pawl's. The namespace
// that its user has chosen stays.
func (k kubeconfig) setContext(c schema.ClientContext) {
	// The door on a loopback address speaks TLS too: without, kubectl and its like
	// send no token.
	cluster := map[string]any{"server": strings.Replace(c.Server, "http://", "https://", 1)}
	if c.CAFile != "" {
		cluster["certificate-authority"] = c.CAFile
	}
	context := map[string]any{"cluster": c.Name, "user": c.Name}
	for _, e := range k.entries("contexts") {
		if named(e, c.Name) {
			old, _ := e.(map[string]any)["context"].(map[string]any)
			if namespace, ok := old["namespace"].(string); ok {
				context["namespace"] = namespace
			}
		}
	}
	k.set("clusters", c.Name, "cluster", cluster)
	k.set("users", c.Name, "user", map[string]any{"tokenFile": c.TokenFile})
	k.set("contexts", c.Name, "context", context)
}

// text is the file, with current as the context used when none was chosen yet.
func (k kubeconfig) text(current string) ([]byte, error) {
	k["apiVersion"], k["kind"] = "v1", "Config"
	if chosen, _ := k["current-context"].(string); chosen == "" {
		k["current-context"] = current
	}
	return yaml.Marshal(k)
}

// writeKubeconfig brings the contexts that pawl knows into the kubeconfig beside
// its own file. It holds no credential, only where they lie.
func (w contextWriter) writeKubeconfig(config schema.ClientConfig) error {
	file := filepath.Join(w.home, "pawl", "kubeconfig")
	k, err := readKubeconfig(file)
	if err != nil {
		return err
	}
	for _, c := range config.Contexts {
		k.setContext(c)
	}
	text, err := k.text(config.Current)
	if err != nil {
		return err
	}
	return replaceFile(file, text)
}
