package access

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pawl-project/pawl/schema"
)

func TestTokensAreMadeOnceAndPrivate(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	admin, view := r.token(Admin), r.token(View)
	if admin == view || len(admin) != 64 {
		t.Errorf("tokens of %d and %d characters", len(admin), len(view))
	}
	for _, file := range []string{TokenFile(r.dir, Admin), TokenFile(r.dir, View), caKeyFile(r.dir)} {
		st, err := os.Stat(file)
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v %v", file, st.Mode(), err)
		}
	}
	r.open("127.0.0.1:0")
	if r.token(Admin) != admin || r.token(View) != view {
		t.Error("a restart makes new tokens")
	}
	left, err := filepath.Glob(filepath.Join(r.dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestATokenFileThatOthersMayKnowIsRefused(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for name, prepare := range map[string]func(file string) error{
		"others read it":     func(f string) error { return errors.Join(os.WriteFile(f, []byte(good), 0o600), os.Chmod(f, 0o604)) },
		"the group reads it": func(f string) error { return errors.Join(os.WriteFile(f, []byte(good), 0o600), os.Chmod(f, 0o640)) },
		"others write it":    func(f string) error { return errors.Join(os.WriteFile(f, []byte(good), 0o600), os.Chmod(f, 0o602)) },
		"another's":          func(f string) error { return errors.Join(os.WriteFile(f, []byte(good), 0o600), os.Chown(f, 12345, -1)) },
		"short":              func(f string) error { return os.WriteFile(f, []byte(good[:31]), 0o600) },
		"empty":              func(f string) error { return os.WriteFile(f, nil, 0o600) },
		"huge":               func(f string) error { return os.WriteFile(f, bytes.Repeat([]byte("a"), 1<<20), 0o600) },
		"a directory":        func(f string) error { return os.Mkdir(f, 0o700) },
		"a pipe":             func(f string) error { return unix.Mkfifo(f, 0o600) },
	} {
		dir := t.TempDir()
		if err := prepare(TokenFile(dir, View)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{DataDir: dir, TLS: TLSOptions{Listen: "127.0.0.1:0"}})
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), good[:31]) {
			t.Errorf("%s: the token is shown: %v", name, err)
		}
	}
}

// A token that somebody put there himself may look like a service account's.
func TestATokenOfOnesOwnMayHaveDots(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	own := strings.Repeat("a.b", 2) + strings.Repeat("c", 32)
	if err := os.WriteFile(TokenFile(r.dir, View), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open("127.0.0.1:0")
	if code, body := r.get(r.client(nil), r.serve(r.Guard(whoami)), "Bearer "+own); code != 200 || !strings.HasPrefix(body, "view ") {
		t.Errorf("%d %s", code, body)
	}
}

func TestANamedTokenOpensUntilItIsRevoked(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	client, url := r.client(nil), r.serve(r.Guard(whoami))
	secret, made, err := CreateToken(r.dir, "ada@example.org", View, 0, r.now.get())
	if err != nil {
		t.Fatal(err)
	}
	if code, body := r.get(client, url, "Bearer "+secret); code != 200 || body != "ada@example.org view pawl:view,system:authenticated" {
		t.Errorf("%d %s", code, body)
	}
	list, err := ListTokens(r.dir)
	if err != nil || !reflect.DeepEqual(list, []Token{made}) {
		t.Errorf("listed: %+v, %v", list, err)
	}
	text, err := os.ReadFile(PeopleFile(r.dir))
	if err != nil || bytes.Contains(text, []byte(secret)) || bytes.Contains(text, []byte(strings.TrimPrefix(secret, "pawl_"))) {
		t.Errorf("the token is in the file: %s %v", text, err)
	}
	if _, _, err := CreateToken(r.dir, "ada@example.org", Admin, 0, r.now.get()); !errors.Is(err, schema.ErrConflict) {
		t.Errorf("a second of that name: %v", err)
	}
	if err := RevokeToken(r.dir, "ada@example.org"); err != nil {
		t.Fatal(err)
	}
	if code, body := r.get(client, url, "Bearer "+secret); code != 401 {
		t.Errorf("revoked: %d %s", code, body)
	}
	if err := RevokeToken(r.dir, "ada@example.org"); !errors.Is(err, schema.ErrNotFound) {
		t.Errorf("revoked twice: %v", err)
	}
}

func TestANamedTokenEnds(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	secret, _, err := CreateToken(r.dir, "ci", Admin, time.Hour, r.now.get())
	if err != nil {
		t.Fatal(err)
	}
	request := func() bool {
		q, _ := http.NewRequest(http.MethodGet, "/", nil)
		q.Header.Set("Authorization", "Bearer "+secret)
		_, ok := r.Authenticate(q)
		return ok
	}
	r.now.forward(59 * time.Minute)
	if !request() {
		t.Error("ended too early")
	}
	r.now.forward(time.Minute)
	if request() {
		t.Error("has not ended")
	}
	if again, _, err := CreateToken(r.dir, "ci", View, 0, r.now.get()); err != nil || again == secret {
		t.Errorf("its name is still taken: %v", err)
	}
}

// A file that cannot be understood may be the one that revokes: it opens for
// nobody, the two tokens of the instance work on, and mending it is seen.
func TestABrokenFileOpensForNobody(t *testing.T) {
	r := newRig(t, "127.0.0.1:0")
	client, url := r.client(nil), r.serve(r.Guard(whoami))
	secret, _, err := CreateToken(r.dir, "ada", View, 0, r.now.get())
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(PeopleFile(r.dir))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"a broken line": func() error {
			return os.WriteFile(PeopleFile(r.dir), append(good, ("eve admin "+secret)...), 0o600)
		},
		"readable by others": func() error { return os.Chmod(PeopleFile(r.dir), 0o644) },
		"gone":               func() error { return os.Remove(PeopleFile(r.dir)) },
	} {
		if err := os.WriteFile(PeopleFile(r.dir), good, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, _ := r.get(client, url, "Bearer "+secret); code != 200 {
			t.Fatalf("before %s: %d", name, code)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if code, _ := r.get(client, url, "Bearer "+secret); code != 401 {
			t.Errorf("%s: %d", name, code)
		}
		if code, _ := r.get(client, url, "Bearer "+r.token(Admin)); code != 200 {
			t.Errorf("%s: the administrator gets %d", name, code)
		}
		os.Chmod(PeopleFile(r.dir), 0o600)
	}
	if strings.Contains(r.log.String(), secret) {
		t.Error("the token is in the log")
	}
}

func TestManyMakeTokensAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, _, err := CreateToken(dir, fmt.Sprintf("u%d", i), View, 0, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := ListTokens(dir); err != nil || len(list) != 20 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

func TestNamesRolesAndTimesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"", "admin", "view", "system:admin", "a b", "a\nb admin", "#a", "-a", "a-", strings.Repeat("a", 64), "ä", "pawl:admin"} {
		if _, _, err := CreateToken(dir, name, View, 0, time.Now()); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	if _, _, err := CreateToken(dir, "ada", "root", 0, time.Now()); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("role root: %v", err)
	}
	if _, _, err := CreateToken(dir, "ada", View, -time.Hour, time.Now()); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("negative ttl: %v", err)
	}
	if _, err := os.Stat(PeopleFile(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
}

func FuzzParseTokens(f *testing.F) {
	h := strings.Repeat("0f", 32)
	f.Add([]byte(peopleHeader))
	f.Add([]byte("ada view sha256:" + h + " 2026-01-31T12:00:00Z never\n"))
	f.Add([]byte("ada admin sha256:" + h + " 2026-01-31T12:00:00+02:00 2027-01-31T12:00:00Z\nbob view sha256:" + h + " 2026-01-31T12:00:00Z never"))
	f.Add([]byte("ada view sha256:" + h[1:] + " 2026-01-31T12:00:00Z never\n"))
	f.Add([]byte("ada view sha256:" + h + "00 2026-01-31T12:00:00Z 0001-01-01T00:00:00Z\n"))
	f.Add([]byte("ada root\x00 x\r\n\xff"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tokens, err := parseTokens(text)
		if err != nil {
			if !errors.Is(err, schema.ErrRefused) || len(err.Error()) > 200 {
				t.Fatalf("an error that tells too much: %v", err)
			}
			return
		}
		seen := map[string]bool{}
		for _, k := range tokens {
			if ValidateName(k.Name) != nil || !k.Role.valid() || seen[k.Name] {
				t.Fatalf("accepted: %+v", k)
			}
			seen[k.Name] = true
		}
		// What is written is read again, and then writes itself.
		once := formatTokens(tokens)
		again, err := parseTokens(once)
		if err != nil || len(again) != len(tokens) {
			t.Fatalf("%s\nis not read again: %v", once, err)
		}
		if twice := formatTokens(again); !bytes.Equal(once, twice) {
			t.Fatalf("%s\nis not\n%s", once, twice)
		}
	})
}
