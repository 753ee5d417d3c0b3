package reconciler

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// LoadToken returns the administrator's token, made on first use and kept in a
// file that only its owner reads.
func LoadToken(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		token := strings.TrimSpace(string(text))
		if len(token) < 32 {
			return "", fmt.Errorf("token file %s: holds %d characters, want 32 or more; remove it to have a new one made", file, len(token))
		}
		return token, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := newToken()
	// Written aside and linked into place, so that a kill never leaves half a token.
	aside := file + ".new"
	if err := os.WriteFile(aside, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	if err := os.Rename(aside, file); err != nil {
		return "", fmt.Errorf("token file %s: %w", filepath.Base(file), err)
	}
	return token, nil
}

func newToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// authorized says whether the request carries the token, as Bearer or as the
// password of Basic. Hashing first makes the comparison independent of length.
func authorized(r *http.Request, token string) bool {
	given := ""
	if _, password, ok := r.BasicAuth(); ok {
		given = password
	} else if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		given = bearer
	}
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(token))
	return given != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
