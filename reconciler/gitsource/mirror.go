package gitsource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/pawl-project/pawl/schema"
)

const (
	lookTimeout  = 30 * time.Second
	fetchTimeout = 15 * time.Minute
	repackAfter  = 50 // packs; a fetch makes one
)

// A mirror is the bare repository on disk that a Remote fetches into. It is
// used by one goroutine.
type mirror struct {
	remote     *Remote
	repository *Repository
	known      string // the commit that was returned last, or refused
	refused    error  // why known cannot be deployed; nil when it can
}

// identity is what the mirror mirrors; it stands beside its objects.
type identity struct {
	URL    string `json:"url"`
	Branch string `json:"branch"`
}

func (m *mirror) identityFile() string { return filepath.Join(m.remote.o.Dir, "pawl.json") }

// open makes or opens the mirror. One that mirrors something else, or that a
// kill left half made, is made anew: everything in it can be fetched again.
func (m *mirror) open() error {
	if m.repository != nil {
		return nil
	}
	dir := m.remote.o.Dir
	want := identity{URL: m.remote.o.URL, Branch: m.remote.o.Branch}
	var have identity
	if raw, err := os.ReadFile(m.identityFile()); err == nil {
		err = json.Unmarshal(raw, &have)
		if err != nil {
			have = identity{}
		}
	}
	if have != want {
		if err := m.make(want); err != nil {
			return fmt.Errorf("mirror %s: %w", dir, err)
		}
	}
	if err := removeHalfPacks(dir); err != nil {
		return fmt.Errorf("mirror %s: %w", dir, err)
	}
	var err error
	m.repository, err = Open(dir)
	return err
}

// make makes an empty mirror. The identity is written last.
func (m *mirror) make(want identity) error {
	if err := m.drop(); err != nil {
		return err
	}
	if err := os.MkdirAll(m.remote.o.Dir, 0o700); err != nil {
		return err
	}
	if _, err := gogit.PlainInit(m.remote.o.Dir, true); err != nil {
		return err
	}
	raw, err := json.Marshal(want)
	if err != nil {
		return err
	}
	return os.WriteFile(m.identityFile(), raw, 0o600)
}

// drop removes the mirror. What it holds is moved out of the way first, so that
// a kill does not leave half a mirror with an identity. A directory that is no
// mirror of ours and not empty is left alone.
func (m *mirror) drop() error {
	m.close()
	dir := m.remote.o.Dir
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(m.identityFile()); err != nil {
		if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
			return fmt.Errorf("the directory is neither empty nor a mirror: %w", schema.ErrRefused)
		}
	}
	aside := dir + ".old"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	if err := os.Rename(dir, aside); err != nil {
		return err
	}
	return os.RemoveAll(aside)
}

func (m *mirror) close() {
	if m.repository != nil {
		m.repository.Close()
		m.repository = nil
	}
	m.known, m.refused = "", nil
}

// removeHalfPacks removes what a fetch that was cut short left: packs that have
// no final name, and indexes of packs that are not there.
func removeHalfPacks(dir string) error {
	packs := filepath.Join(dir, "objects", "pack")
	entries, err := os.ReadDir(packs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		half := strings.HasPrefix(e.Name(), "tmp_pack_")
		if base, ok := strings.CutSuffix(e.Name(), ".idx"); ok {
			_, err := os.Stat(filepath.Join(packs, base+".pack"))
			half = errors.Is(err, fs.ErrNotExist)
		}
		if half {
			if err := os.Remove(filepath.Join(packs, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// current implements source.
func (m *mirror) current(ctx context.Context) (schema.Commit, bool, error) {
	if err := m.open(); err != nil {
		return schema.Commit{}, false, err
	}
	id, err := m.repository.Head(m.remote.o.Branch)
	if errors.Is(err, schema.ErrNotFound) {
		return schema.Commit{}, false, nil
	}
	if err != nil {
		return schema.Commit{}, false, err
	}
	c, err := m.repository.Commit(ctx, id, m.remote.o.Path)
	if err != nil {
		return schema.Commit{}, false, err
	}
	m.known = id
	return c, true, nil
}

// look implements source. A mirror that turns out to be damaged (by a power
// cut, or a disk that fails) is made anew: everything in it can be fetched again.
func (m *mirror) look(ctx context.Context) (schema.Commit, bool, error) {
	c, moved, err := m.lookOnce(ctx)
	if !errors.Is(err, errDamaged) || ctx.Err() != nil {
		return c, moved, err
	}
	m.remote.log.Warn("the mirror is damaged and is made anew", "error", err)
	if err := m.drop(); err != nil {
		return schema.Commit{}, false, fmt.Errorf("mirror %s: %w", m.remote.o.Dir, err)
	}
	return m.lookOnce(ctx)
}

// errDamaged: something that was fetched cannot be read.
var errDamaged = errors.New("damaged")

func (m *mirror) lookOnce(ctx context.Context) (schema.Commit, bool, error) {
	if err := m.open(); err != nil {
		return schema.Commit{}, false, err
	}
	auth, err := m.remote.auth()
	if err != nil {
		return schema.Commit{}, false, fmt.Errorf("%w: %w", err, schema.ErrUnavailable)
	}
	id, err := m.list(ctx, auth)
	if err != nil {
		return schema.Commit{}, false, err
	}
	if id == m.known {
		if err := m.repack(ctx); err != nil { // now nobody waits for a commit
			return schema.Commit{}, false, err
		}
		return schema.Commit{}, false, m.refused
	}
	if here, err := m.repository.Head(m.remote.o.Branch); err != nil || here != id {
		if err := m.fetch(ctx, auth); err != nil {
			return schema.Commit{}, false, errors.Join(err, m.damage())
		}
	}
	return m.take(ctx)
}

// take reads the commit that the mirror's branch points at.
func (m *mirror) take(ctx context.Context) (schema.Commit, bool, error) {
	id, err := m.repository.Head(m.remote.o.Branch)
	if err == nil && id == m.known {
		return schema.Commit{}, false, m.refused
	}
	var c schema.Commit
	if err == nil {
		c, err = m.repository.Commit(ctx, id, m.remote.o.Path)
	}
	switch {
	case err == nil, errors.Is(err, schema.ErrRefused):
		m.known, m.refused = id, err
		return c, err == nil, err
	case ctx.Err() != nil:
		return c, false, err
	}
	return c, false, fmt.Errorf("mirror %s: %w: %w", m.remote.o.Dir, err, errDamaged)
}

// damage looks for a reason in the mirror why a fetch failed: go-git reads it
// to tell the remote what is here. It returns nil when it finds none.
func (m *mirror) damage() error {
	id, err := m.repository.Head(m.remote.o.Branch)
	if errors.Is(err, schema.ErrNotFound) {
		return nil // empty: there is nothing to be damaged
	}
	if err == nil {
		storage := filesystem.NewStorage(osfs.New(m.remote.o.Dir), cache.NewObjectLRU(1<<20))
		if err = storage.HasEncodedObject(plumbing.NewHash(id)); err == nil {
			_, err = storage.EncodedObject(plumbing.CommitObject, plumbing.NewHash(id))
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", err, errDamaged)
	}
	return nil
}

// remoteOf is go-git's remote, writing into the mirror through limited storage.
func (m *mirror) remoteOf(storage storage.Storer) *gogit.Remote {
	return gogit.NewRemote(storage, &config.RemoteConfig{Name: "origin", URLs: []string{m.url()}})
}

// url is the address for go-git; the user of an ssh URL is part of it.
func (m *mirror) url() string {
	if m.remote.endpoint.Protocol != "ssh" {
		return m.remote.o.URL
	}
	e := *m.remote.endpoint
	e.User = m.remote.user
	return e.String()
}

// list asks the remote for its references: one short exchange.
func (m *mirror) list(ctx context.Context, auth transport.AuthMethod) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	refs, err := m.remoteOf(memory.NewStorage()).ListContext(ctx, &gogit.ListOptions{Auth: auth})
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return "", fmt.Errorf("the remote repository is empty: %w", schema.ErrNotFound)
	}
	if err != nil {
		return "", plain(err)
	}
	name := plumbing.NewBranchReferenceName(m.remote.o.Branch)
	for _, ref := range refs {
		if ref.Name() == name && ref.Type() == plumbing.HashReference {
			return ref.Hash().String(), nil
		}
	}
	return "", errBranchGone
}

// fetch brings the mirror's branch to where the remote's is, forced or not.
func (m *mirror) fetch(ctx context.Context, auth transport.AuthMethod) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	into := &limitedStorage{
		Storage: filesystem.NewStorage(osfs.New(m.remote.o.Dir), cache.NewObjectLRU(4<<20)),
		ctx:     ctx,
		limit:   m.remote.o.MaxFetchBytes,
		left:    m.remote.o.MaxFetchBytes,
	}
	if m.remote.endpoint.Protocol == "file" {
		// go-git waits for the upload-pack on this machine to end, which it only
		// does when all that it writes is read.
		into.drain = true
		ctx = context.WithoutCancel(ctx)
	}
	name := plumbing.NewBranchReferenceName(m.remote.o.Branch)
	err := m.remoteOf(into).FetchContext(ctx, &gogit.FetchOptions{
		Auth:     auth,
		RefSpecs: []config.RefSpec{config.RefSpec(fmt.Sprintf("+%[1]s:%[1]s", name))},
		Tags:     gogit.NoTags,
		Force:    true,
	})
	if err == nil || errors.Is(err, gogit.NoErrAlreadyUpToDate) {
		return nil
	}
	if into.left < 0 {
		err = fmt.Errorf("one fetch brings more than %d bytes", into.limit)
	}
	return errors.Join(plain(err), removeHalfPacks(m.remote.o.Dir))
}

// repack has git put many small packs into one, now and then. A machine that
// has no git keeps them as they are.
func (m *mirror) repack(ctx context.Context) error {
	names, err := packNames(filepath.Join(m.remote.o.Dir, "objects"))
	if err != nil || len(names) < repackAfter {
		return err
	}
	cmd := exec.CommandContext(ctx, "git", "repack", "-a", "-d", "-q", "--threads=1", "--window-memory=32m")
	cmd.Dir = m.remote.o.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	if out, err := cmd.CombinedOutput(); err != nil {
		m.remote.log.Warn("the mirror's packs cannot be joined", "packs", len(names), "error", err, "git", strings.TrimSpace(string(out[:min(len(out), 300)])))
	}
	return nil
}

// limitedStorage refuses a pack that is larger than the limit.
type limitedStorage struct {
	*filesystem.Storage
	ctx   context.Context // when it is done, nothing is written any more
	drain bool            // read what is not written, instead of failing at once
	limit int64           // bytes
	left  int64           // of limit; negative when more came
}

// PackfileWriter implements storer.PackfileWriter.
func (s *limitedStorage) PackfileWriter() (io.WriteCloser, error) {
	w, err := s.Storage.PackfileWriter()
	if err != nil {
		return nil, err
	}
	return &limitedWriter{WriteCloser: w, storage: s}, nil
}

type limitedWriter struct {
	io.WriteCloser
	storage *limitedStorage
}

// Write implements io.Writer. A pack whose end is drained is no whole pack, and
// refused as such when it is closed.
func (w *limitedWriter) Write(p []byte) (int, error) {
	s := w.storage
	if int64(len(p)) > s.left {
		s.left = -1
	}
	if err := s.ctx.Err(); s.left < 0 || err != nil {
		if s.drain {
			return len(p), nil
		}
		if err == nil {
			err = fmt.Errorf("more than %d bytes", s.limit)
		}
		return 0, err
	}
	s.left -= int64(len(p))
	return w.WriteCloser.Write(p)
}
