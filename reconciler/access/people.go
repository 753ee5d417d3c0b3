package access

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

// A Token is what is kept of a named token: everything but itself.
type Token struct {
	Name    string
	Role    Role
	Created time.Time
	Expires time.Time // zero: never

	hash hash
}

// Expired says whether the token no longer opens anything.
func (t Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// The file has one token per line:
//
//	NAME ROLE sha256:HEX CREATED EXPIRES
//
// with times as RFC 3339 and "never" for a token without an end. Empty lines and
// lines that begin with # say nothing.
const (
	peopleHeader = "# Pawl's named tokens: name, role, hash, created, expires. Written by pawld token; read again when it changes.\n"
	never        = "never"
	hashPrefix   = "sha256:"

	mostPeopleBytes = 1 << 20
)

// A name may be an address, such as ada@example.org. A colon is left to the
// names and groups that the system gives.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9._@+]{0,61}[A-Za-z0-9])?$`)

// ValidateName says whether a user may be called so.
func ValidateName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("user name %q: want 1 to 63 letters, digits and - . _ @ +, beginning and ending with a letter or digit: %w", name, schema.ErrRefused)
	}
	if Role(name).valid() {
		return fmt.Errorf("user name %q is that of a token every instance has: %w", name, schema.ErrRefused)
	}
	return nil
}

// ParseRole reads a role as people write it.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r.valid() {
		return r, nil
	}
	return "", fmt.Errorf("role %q: must be one of %s, %s: %w", s, View, Admin, schema.ErrRefused)
}

// parseTokens reads the file's text. An error names the line and repeats
// nothing of it: a person may have pasted a token there.
func parseTokens(text []byte) ([]Token, error) {
	var tokens []Token
	names := map[string]bool{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		t, err := parseToken(fields)
		if err == nil && names[t.Name] {
			err = errors.New("the name stands there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", number, err, schema.ErrRefused)
		}
		names[t.Name] = true
		tokens = append(tokens, t)
	}
	return tokens, nil
}

func parseToken(fields []string) (Token, error) {
	if len(fields) != 5 {
		return Token{}, fmt.Errorf("%d fields, want name, role, hash, created and expires", len(fields))
	}
	t := Token{Name: fields[0], Role: Role(fields[1])}
	if ValidateName(t.Name) != nil {
		return Token{}, errors.New("the name is none")
	}
	if !t.Role.valid() {
		return Token{}, errors.New("the role is none")
	}
	digits, ok := strings.CutPrefix(fields[2], hashPrefix)
	if n, err := hex.Decode(t.hash[:], []byte(digits[:min(len(digits), 2*len(t.hash))])); !ok || err != nil || n != len(t.hash) || len(digits) != 2*n {
		return Token{}, errors.New("the hash is not sha256: and 64 hex digits")
	}
	var err error
	if t.Created, err = time.Parse(time.RFC3339, fields[3]); err != nil {
		return Token{}, errors.New("the time of creation is not as in 2026-01-31T12:00:00Z")
	}
	if fields[4] == never {
		return t, nil
	}
	if t.Expires, err = time.Parse(time.RFC3339, fields[4]); err != nil || t.Expires.IsZero() {
		return Token{}, errors.New("the time it expires is neither never nor as in 2026-01-31T12:00:00Z")
	}
	return t, nil
}

func formatTokens(tokens []Token) []byte {
	tokens = slices.Clone(tokens)
	slices.SortFunc(tokens, func(a, b Token) int { return cmp.Compare(a.Name, b.Name) })
	b := bytes.NewBufferString(peopleHeader)
	for _, t := range tokens {
		end := never
		if !t.Expires.IsZero() {
			end = t.Expires.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(b, "%s %s %s%x %s %s\n", t.Name, t.Role, hashPrefix, t.hash, t.Created.UTC().Format(time.RFC3339), end)
	}
	return b.Bytes()
}

// readTokens reads the file; there is none before the first token is made.
func readTokens(file string) ([]Token, error) {
	text, err := readPrivate(file, mostPeopleBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("named tokens: %w", err)
	}
	tokens, err := parseTokens(text)
	if err != nil {
		return nil, fmt.Errorf("named tokens: %s: %w", file, err)
	}
	return tokens, nil
}

// people are the named tokens as they stand in the file at the moment of asking:
// a look at the file's dates per question, and no process to be told of a change.
type people struct {
	file string
	log  *slog.Logger

	mu     sync.Mutex // guards what follows
	seen   fileState
	tokens []Token // of the file in that state; none when it cannot be understood
}

func newPeople(file string, log *slog.Logger) *people { return &people{file: file, log: log} }

// find says whose token it is. All are compared, so that the time does not tell
// which one was near.
func (p *people) find(h hash, now time.Time) (User, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	found, ok := Token{}, false
	for _, t := range p.tokens {
		if t.hash.equal(h) {
			found, ok = t, true
		}
	}
	if !ok || found.Expired(now) {
		return User{}, false
	}
	return newUser(found.Name, found.Role), true
}

// refresh reads the file when it is not the one that was read last. A file that
// cannot be understood opens for nobody: it may be the one that revokes.
func (p *people) refresh() {
	state := stateOf(p.file)
	if state == p.seen {
		return
	}
	tokens, err := readTokens(p.file)
	if err != nil {
		p.log.Error("no named token is accepted until their file is mended", "error", err)
	}
	if p.tokens = tokens; !passing(err) {
		p.seen = state
	}
}

// A fileState differs when a file was replaced or written to. The zero one is
// that of a file which is not there.
type fileState struct {
	device, inode    uint64
	size             int64
	mode             uint32
	modified, change unix.Timespec
}

func stateOf(file string) fileState {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return fileState{}
	}
	return fileState{device: uint64(st.Dev), inode: st.Ino, size: st.Size, mode: st.Mode, modified: st.Mtim, change: st.Ctim}
}

// CreateToken makes a named token and returns it: it is kept nowhere. A ttl of 0
// means that it has no end.
func CreateToken(dataDir, name string, role Role, ttl time.Duration, now time.Time) (string, Token, error) {
	if err := ValidateName(name); err != nil {
		return "", Token{}, err
	}
	if _, err := ParseRole(string(role)); err != nil {
		return "", Token{}, err
	}
	if ttl != 0 && ttl < time.Second {
		return "", Token{}, fmt.Errorf("--ttl %s: want a second or more, or 0 for a token without an end: %w", ttl, schema.ErrRefused)
	}
	plain := "pawl_" + newToken()
	t := Token{Name: name, Role: role, Created: now.UTC().Truncate(time.Second), hash: hashOf(plain)}
	if ttl > 0 {
		t.Expires = t.Created.Add(ttl)
	}
	err := changeTokens(dataDir, func(tokens []Token) ([]Token, error) {
		// One that has ended does not hold its name.
		tokens = slices.DeleteFunc(tokens, func(o Token) bool { return o.Name == name && o.Expired(now) })
		if slices.ContainsFunc(tokens, func(o Token) bool { return o.Name == name }) {
			return nil, fmt.Errorf("there is a token named %s already; revoke it first, or choose another name: %w", name, schema.ErrConflict)
		}
		return append(tokens, t), nil
	})
	if err != nil {
		return "", Token{}, err
	}
	return plain, t, nil
}

// ListTokens returns the named tokens by name, those that have ended too.
func ListTokens(dataDir string) ([]Token, error) {
	tokens, err := readTokens(PeopleFile(dataDir))
	slices.SortFunc(tokens, func(a, b Token) int { return cmp.Compare(a.Name, b.Name) })
	return tokens, err
}

// RevokeToken removes a named token; the next request with it is refused.
func RevokeToken(dataDir, name string) error {
	return changeTokens(dataDir, func(tokens []Token) ([]Token, error) {
		left := slices.DeleteFunc(slices.Clone(tokens), func(t Token) bool { return t.Name == name })
		if len(left) == len(tokens) {
			return nil, fmt.Errorf("there is no token named %q: %w", name, schema.ErrNotFound)
		}
		return left, nil
	})
}

// changeTokens lets one process at a time read, change and replace the file.
func changeTokens(dataDir string, change func([]Token) ([]Token, error)) error {
	file := PeopleFile(dataDir)
	lock, err := os.OpenFile(file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("named tokens: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("named tokens: lock: %w", err)
	}
	tokens, err := readTokens(file)
	if err != nil {
		return err
	}
	if tokens, err = change(tokens); err != nil {
		return err
	}
	text := formatTokens(tokens)
	if len(text) > mostPeopleBytes {
		return fmt.Errorf("named tokens: there is room for no more: revoke some: %w", schema.ErrRefused)
	}
	if err := writePrivate(file, text); err != nil {
		return fmt.Errorf("named tokens: %w", err)
	}
	return nil
}
