package gitsource

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"

	"github.com/pawl-project/pawl/schema"
)

const (
	maxCredentials = 64 << 10 // bytes of a credentials file
	sshTimeout     = 20 * time.Second
)

// auth reads the credentials; nil when there are none. Its errors name files
// and never show what stands in them.
func (r *Remote) auth() (transport.AuthMethod, error) {
	if r.o.CredentialsFile == "" || r.endpoint.Protocol == "file" {
		return nil, nil
	}
	info, err := os.Stat(r.o.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if info.Size() > maxCredentials {
		return nil, fmt.Errorf("credentials file %s: %d bytes, the limit is %d", r.o.CredentialsFile, info.Size(), maxCredentials)
	}
	raw, err := os.ReadFile(r.o.CredentialsFile)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	if r.endpoint.Protocol == "ssh" {
		return r.sshAuth(raw)
	}
	text := strings.TrimSpace(string(raw))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("credentials file %s: want one line, user:password or a token", r.o.CredentialsFile)
	}
	user, password, ok := strings.Cut(text, ":")
	if !ok {
		// Forges take a token as the password of any user; some want one that is not empty.
		user, password = "git", text
		if r.user != "" {
			user = r.user
		}
	}
	return &githttp.BasicAuth{Username: user, Password: password}, nil
}

func (r *Remote) sshAuth(key []byte) (transport.AuthMethod, error) {
	keys, err := gitssh.NewPublicKeys(r.user, key, "")
	if err != nil {
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			return nil, fmt.Errorf("private key %s: it has a passphrase, which nobody can enter here", r.o.CredentialsFile)
		}
		return nil, fmt.Errorf("private key %s: it cannot be read as one", r.o.CredentialsFile)
	}
	if _, err := os.Stat(r.o.KnownHostsFile); err != nil {
		return nil, fmt.Errorf("known hosts: %w; write it with ssh-keyscan and check the fingerprint", err)
	}
	known, err := gitssh.NewKnownHostsDb(r.o.KnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("known hosts %s: %w", r.o.KnownHostsFile, err)
	}
	port := r.endpoint.Port
	if port == 0 {
		port = 22
	}
	return &sshKey{
		PublicKeys: keys,
		config: ssh.ClientConfig{
			HostKeyCallback: known.HostKeyCallback(),
			// Ask for a kind of key that is known, or a server with several
			// shows one that is not.
			HostKeyAlgorithms: known.HostKeyAlgorithms(net.JoinHostPort(r.endpoint.Host, strconv.Itoa(port))),
			Timeout:           sshTimeout,
		},
	}, nil
}

// sshKey is a private key together with whom it may be shown to.
type sshKey struct {
	*gitssh.PublicKeys
	config ssh.ClientConfig
}

// ClientConfig implements gitssh.AuthMethod.
func (k *sshKey) ClientConfig() (*ssh.ClientConfig, error) {
	c := k.config
	c.User = k.User
	c.Auth = []ssh.AuthMethod{ssh.PublicKeys(k.Signer)}
	return &c, nil
}

// plain says in a few words what people should know of an error of the transport.
func plain(err error) error {
	switch {
	case errors.Is(err, transport.ErrAuthenticationRequired):
		return fmt.Errorf("authentication failed: the server wants other credentials: %w", schema.ErrUnavailable)
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("authorization failed: the credentials may not read this repository: %w", schema.ErrUnavailable)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("there is no such repository, or it may not be seen without credentials: %w", schema.ErrUnavailable)
	case errors.Is(err, schema.ErrRefused) || errors.Is(err, schema.ErrNotFound):
		return err
	}
	return fmt.Errorf("%w: %w", err, schema.ErrUnavailable)
}

var userinfo = regexp.MustCompile(`//[^/@\s"']*@`)

// clean is the text of an error without what could be a credential, and on one line.
func (r *Remote) clean(err error) string {
	text := strings.Join(strings.Fields(userinfo.ReplaceAllString(err.Error(), "//")), " ")
	return text[:min(len(text), 1000)]
}
