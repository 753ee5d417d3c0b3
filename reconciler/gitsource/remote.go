package gitsource

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/pawl-project/pawl/schema"
)

const (
	defaultInterval = time.Minute
	// defaultFetch bounds the pack of one fetch, in bytes as sent.
	defaultFetch = 256 << 20
)

// RemoteOptions says which branch of which repository is followed.
type RemoteOptions struct {
	URL    string // https, ssh (also user@host:path), file, or a path; http without credentials
	Branch string // "" means main
	Path   string // the folder of the tree that is deployed; "" means all of it
	Dir    string // of the bare mirror; made when missing, replaced when it mirrors something else

	Interval time.Duration // between looks, give or take a tenth; 0 means 1 minute

	// CredentialsFile is read at every look, so that it may be renewed. For
	// https it holds user:password or a token; for ssh it is the private key.
	CredentialsFile string
	// KnownHostsFile names the ssh servers that are trusted. "" means the file
	// known_hosts beside CredentialsFile.
	KnownHostsFile string

	// Refused, when set, is told once of a commit that the branch moved to and whose
	// tree cannot be deployed, without its tree. It delays the next look.
	Refused func(schema.Commit, *schema.Refusal)

	MaxFetchBytes int64        // of one fetch, as sent; 0 means 256 MiB
	Logger        *slog.Logger // nil means slog.Default()
}

// A Remote follows a branch of a repository elsewhere through a mirror on disk.
type Remote struct {
	o        RemoteOptions
	endpoint *transport.Endpoint // without user and password
	user     string
	name     string // of the remote repository, for people: no user, no password
	now      chan struct{}
	log      *slog.Logger

	mu     sync.Mutex // guards status
	status RemoteStatus
}

// RemoteStatus is how the following goes.
type RemoteStatus struct {
	URL      string // without user and password
	Branch   string
	Commit   string    // the good commit that was found last; "" before the first
	LookedAt time.Time // when the last look ended; zero before the first
	NextLook time.Time // when the next one is due if nobody calls LookNow
	Failures int       // looks that failed since the last one that did not
	Problem  string    // of the last look; "" when all is well. The last good commit stands
	// Refusal is set when the branch moved to a commit whose tree cannot be
	// deployed; looking again cannot help.
	Refusal *schema.Refusal
}

// NewRemote checks the options; it starts nothing and opens no connection. It
// fails with schema.ErrRefused when they cannot work.
func NewRemote(o RemoteOptions) (*Remote, error) {
	if o.Branch == "" {
		o.Branch = "main"
	}
	if o.Interval <= 0 {
		o.Interval = defaultInterval
	}
	if o.MaxFetchBytes == 0 {
		o.MaxFetchBytes = defaultFetch
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.CredentialsFile != "" && o.KnownHostsFile == "" {
		o.KnownHostsFile = filepath.Join(filepath.Dir(o.CredentialsFile), "known_hosts")
	}
	if o.Dir == "" {
		return nil, fmt.Errorf("a directory for the mirror is needed: %w", schema.ErrRefused)
	}
	if err := plumbing.NewBranchReferenceName(o.Branch).Validate(); err != nil {
		return nil, fmt.Errorf("branch %q: %w: %w", o.Branch, err, schema.ErrRefused)
	}
	if _, err := cleanPath(o.Path); err != nil {
		return nil, err
	}
	endpoint, user, err := parseURL(o.URL, o.CredentialsFile)
	if err != nil {
		return nil, err
	}
	o.URL = endpoint.String() // the user and the password are gone from here on
	r := &Remote{
		o:        o,
		endpoint: endpoint,
		user:     user,
		name:     o.URL,
		now:      make(chan struct{}, 1),
		log:      o.Logger.With("room", "gitsource", "url", o.URL, "branch", o.Branch),
	}
	r.status = RemoteStatus{URL: r.name, Branch: o.Branch}
	return r, nil
}

// parseURL takes the URL apart. The error never shows it: it may hold a password.
func parseURL(text, credentials string) (endpoint *transport.Endpoint, user string, err error) {
	refused := func(problem string) error {
		return fmt.Errorf("the URL of the Git repository %s: %w", problem, schema.ErrRefused)
	}
	if strings.TrimSpace(text) == "" {
		return nil, "", refused("is empty")
	}
	endpoint, err = transport.NewEndpoint(text)
	if err != nil {
		return nil, "", refused("cannot be read")
	}
	user = endpoint.User
	if endpoint.Password != "" {
		return nil, "", refused("holds a password; put it into the credentials file")
	}
	endpoint.User = ""
	switch endpoint.Protocol {
	case "file", "https":
	case "http":
		if credentials != "" && !loopback(endpoint.Host) {
			return nil, "", refused("would send the credentials in the clear; use https")
		}
	case "ssh":
		if user == "" {
			user = "git"
		}
		if credentials == "" {
			return nil, "", refused("is ssh, which needs a private key as credentials file and a known_hosts file beside it")
		}
	default:
		return nil, "", refused("has a scheme other than https, ssh and file")
	}
	if endpoint.Protocol != "file" && endpoint.Host == "" {
		return nil, "", refused("names no host")
	}
	return endpoint, user, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// LookNow asks for a look at the remote repository without waiting for the next
// one that is due. It returns at once; many calls may become one look.
func (r *Remote) LookNow() {
	select {
	case r.now <- struct{}{}:
	default:
	}
}

// Status tells how the following goes. It may be called at any time.
func (r *Remote) Status() RemoteStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

func (r *Remote) setStatus(change func(*RemoteStatus)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}
