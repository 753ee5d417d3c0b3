package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
)

// A hash stands for a token. The tokens are random and long, so that a plain
// hash cannot be turned back and needs no salt.
type hash [sha256.Size]byte

func hashOf(token string) hash { return sha256.Sum256([]byte(token)) }

// equal takes the same time wherever the two differ.
func (h hash) equal(other hash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// A secret is a hash and whom it stands for.
type secret struct {
	user User
	hash hash
}

// newToken returns 256 random bits in hexadecimal.
func newToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// shortestToken is 128 bits in hexadecimal: what nobody guesses.
const shortestToken = 32

// LoadToken returns the token in a file, which is made on first use and which
// only its owner reads. A file that others can read is refused: the token in it
// may be known already.
func LoadToken(file string) (string, error) {
	text, err := readPrivate(file, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		token := newToken()
		if err := writePrivate(file, []byte(token+"\n")); err != nil {
			return "", fmt.Errorf("token file: %w", err)
		}
		return token, nil
	}
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < shortestToken {
		return "", fmt.Errorf("token file %s: holds %d characters, want %d or more; remove it to have a new one made", file, len(token), shortestToken)
	}
	return token, nil
}

// bearer takes the token out of a request: a bearer token, or the password of
// Basic, as Git and browsers send it. It is "" for a header that is neither,
// and for several headers, of which nobody can say which one is meant.
func bearer(r *http.Request) (token string, given bool) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", false
	}
	if len(headers) > 1 {
		return "", true
	}
	if _, password, ok := r.BasicAuth(); ok {
		return password, true
	}
	scheme, value, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(value), true
}
