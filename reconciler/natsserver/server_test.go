package natsserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"encoding/json"

	"github.com/pawl-project/pawl/schema"
	"github.com/pawl-project/pawl/schema/kv"
)

func options(dir, listen string) Options {
	return Options{Dir: filepath.Join(dir, "nats"), KeysDir: filepath.Join(dir, "keys"), Listen: listen, Logger: slog.New(slog.DiscardHandler)}
}

func startServer(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func connect(t testing.TB, s *Server, creds kv.Credentials, err error) *kv.Conn {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kv.Connect(t.Context(), kv.ConnOptions{InProcess: s, Credentials: creds, Name: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func openStore(t testing.TB, s *Server) (*kv.Conn, *kv.Store) {
	t.Helper()
	creds, err := s.ControlCredentials()
	c := connect(t, s, creds, err)
	store, err := kv.OpenStore(t.Context(), c, kv.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c, store
}

func put(t testing.TB, store *kv.Store, key, value string) {
	t.Helper()
	if _, err := store.Commit(t.Context(), []kv.Write{{Bucket: kv.Desired, Key: key, Value: []byte(value)}}); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t testing.TB, c *kv.Conn) []string {
	t.Helper()
	keys, err := kv.ReadKeys(t.Context(), c, kv.Desired)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestWhatWasWrittenOutlivesTheServer(t *testing.T) {
	o := options(t.TempDir(), "")
	s := startServer(t, o)
	_, store := openStore(t, s)
	put(t, store, "configmaps.default.a", `{"a":1}`)
	s.Close()

	s = startServer(t, o)
	c, _ := openStore(t, s)
	if keys := keysOf(t, c); len(keys) != 1 {
		t.Errorf("keys after a restart: %q", keys)
	}
}

func TestWipedStoreStartsClean(t *testing.T) {
	o := options(t.TempDir(), "127.0.0.1:0")
	s := startServer(t, o)
	before, err := s.ControlCredentials()
	if err != nil {
		t.Fatal(err)
	}
	_, store := openStore(t, s)
	put(t, store, "configmaps.default.a", `{"a":1}`)
	s.Close()
	if err := os.RemoveAll(o.Dir); err != nil {
		t.Fatal(err)
	}

	s = startServer(t, o)
	c := connect(t, s, before, nil) // credentials outlive the store
	if _, err := kv.OpenStore(t.Context(), c, kv.StoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if keys := keysOf(t, c); len(keys) != 0 {
		t.Errorf("keys of a wiped store: %q", keys)
	}
}

func TestOneServerPerStore(t *testing.T) {
	o := options(t.TempDir(), "")
	s := startServer(t, o)
	if _, err := Start(t.Context(), o); !errors.Is(err, schema.ErrUnavailable) || !strings.Contains(err.Error(), o.Dir) {
		t.Errorf("a second server on one store: %v", err)
	}
	s.Close()
	startServer(t, o)
}

func TestOnlyLoopbackIsServed(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:7422", "[::]:7422", "192.0.2.1:7422", "example.org:7422", "7422", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"} {
		if _, err := Start(t.Context(), options(t.TempDir(), listen)); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("listen on %q: %v", listen, err)
		}
	}
	s := startServer(t, options(t.TempDir(), ""))
	if url := s.ClientURL(); url != "" {
		t.Errorf("a server that listens nowhere says %q", url)
	}
	s = startServer(t, options(t.TempDir(), "localhost:0"))
	if url := s.ClientURL(); !strings.HasPrefix(url, "nats://127.0.0.1:") {
		t.Errorf("listens on %q", url)
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	s := startServer(t, options(t.TempDir(), "127.0.0.1:0"))
	address := strings.TrimPrefix(s.ClientURL(), "nats://")
	if _, err := Start(t.Context(), options(t.TempDir(), address)); err == nil || !strings.Contains(err.Error(), address) {
		t.Errorf("listen on a port in use: %v", err)
	}
}

// A store that cannot be read whole stops the start, and nothing of it is touched.
func TestDamagedStoreIsSaid(t *testing.T) {
	for name, damage := range map[string]func(o Options, stream string) error{
		"settings of a stream are gone": func(_ Options, stream string) error {
			return os.Remove(filepath.Join(stream, "meta.inf"))
		},
		"settings of a stream are garbage": func(_ Options, stream string) error {
			return os.WriteFile(filepath.Join(stream, "meta.inf"), []byte("garbage"), 0o600)
		},
		"settings of a stream have a flipped bit": func(_ Options, stream string) error {
			file := filepath.Join(stream, "meta.inf")
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			text[len(text)/2] ^= 1
			return os.WriteFile(file, text, 0o600)
		},
		"the key of a block is gone": func(_ Options, stream string) error {
			return os.Remove(filepath.Join(stream, "msgs", "1.key"))
		},
		"a block cannot be opened, for which the server would remove the stream": func(_ Options, stream string) error {
			block := filepath.Join(stream, "msgs", "1.blk")
			return errors.Join(os.Rename(block, block+".away"), os.Mkdir(block, 0o700))
		},
		"the key of the store is another": func(o Options, _ string) error {
			return os.WriteFile(filepath.Join(o.KeysDir, "store.key"), []byte(strings.Repeat("ab", 32)), 0o600)
		},
		"the key of the store is cut": func(o Options, _ string) error {
			return os.WriteFile(filepath.Join(o.KeysDir, "store.key"), []byte("ab"), 0o600)
		},
		"the key of the store is gone": func(o Options, _ string) error {
			return os.Remove(filepath.Join(o.KeysDir, "store.key"))
		},
		"all keys are gone": func(o Options, _ string) error {
			return os.RemoveAll(o.KeysDir)
		},
		"a key is garbage": func(o Options, _ string) error {
			return os.WriteFile(filepath.Join(o.KeysDir, "control.nk"), []byte("garbage"), 0o600)
		},
		"the store is no directory": func(o Options, _ string) error {
			if err := os.Rename(o.Dir, o.Dir+".away"); err != nil {
				return err
			}
			return os.WriteFile(o.Dir, nil, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir(), "")
			s := startServer(t, o)
			_, store := openStore(t, s)
			put(t, store, "configmaps.default.a", `{"a":1}`)
			control := s.keys.control.public
			s.Close()
			if err := damage(o, filepath.Join(o.Dir, "jetstream", control, "streams", "KV_pawl-desired")); err != nil {
				t.Fatal(err)
			}
			before := tree(t, o.Dir)
			s, err := Start(t.Context(), o)
			if err == nil {
				s.Close()
				t.Fatal("the server starts")
			}
			t.Log(err)
			for file := range before {
				if _, ok := tree(t, o.Dir)[file]; !ok {
					t.Errorf("%s was removed", file)
				}
			}
		})
	}
}

// A server that was killed while it made a stream starts again.
func TestUnfinishedStreamIsSetAside(t *testing.T) {
	for _, missing := range []string{"meta.sum", "meta.inf", "meta.key"} {
		t.Run(missing, func(t *testing.T) {
			o := options(t.TempDir(), "")
			s := startServer(t, o)
			_, store := openStore(t, s)
			put(t, store, "configmaps.default.a", `{"a":1}`)
			stream := filepath.Join(streamsDir(o.Dir, s.keys.control.public), "KV_pawl-assignments")
			s.Close()
			if err := os.Remove(filepath.Join(stream, missing)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s = startServer(t, o)
				c, _ := openStore(t, s)
				if keys := keysOf(t, c); len(keys) != 1 {
					t.Errorf("keys: %q", keys)
				}
				s.Close()
			}
		})
	}
}

// A server that was killed while it began a block of a stream has everything that
// is in the blocks before.
func TestUnfinishedBlock(t *testing.T) {
	for _, key := range []string{"", "2.key.tmp"} {
		o := options(t.TempDir(), "")
		s := startServer(t, o)
		_, store := openStore(t, s)
		put(t, store, "configmaps.default.a", `{"a":1}`)
		blocks := filepath.Join(streamsDir(o.Dir, s.keys.control.public), "KV_pawl-desired", "msgs")
		s.Close()
		for _, file := range []string{"2.blk", key} {
			if file == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(blocks, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s = startServer(t, o)
		c, _ := openStore(t, s)
		if keys := keysOf(t, c); len(keys) != 1 {
			t.Errorf("with %q: keys: %q", key, keys)
		}
		s.Close()
	}
}

// tree is the files below dir.
func tree(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[path] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestKeysAndCredentialsAreSecret(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, "127.0.0.1:0")
	s := startServer(t, o)
	creds := filepath.Join(dir, "operator", "operator.creds")
	for range 2 { // the second replaces the first
		if err := s.WriteCredsFile(creds); err != nil {
			t.Fatal(err)
		}
	}
	for file := range tree(t, dir) {
		if strings.HasPrefix(file, o.Dir) {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(creds)); err != nil || len(entries) != 1 {
		t.Errorf("beside the credentials lie %v (%v)", entries, err)
	}
	nc, err := nats.Connect(s.ClientURL(), nats.UserCredentials(creds)) // as the nats CLI does
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	read, err := kv.ReadCredsFile(creds)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, s, read, nil)
}

func TestNodeNamesThatWouldOpenMore(t *testing.T) {
	s := startServer(t, options(t.TempDir(), ""))
	for _, n := range []schema.NodeName{"", "*", ">", "n1.n2", "N1", "n 1", "{{name()}}", "-n", "n1\n"} {
		if _, err := s.NodeCredentials(n); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("credentials for node %q: %v", n, err)
		}
	}
}

// Whoever shows no credentials, or those of another cluster, stays outside.
func TestStrangersStayOutside(t *testing.T) {
	s := startServer(t, options(t.TempDir(), "127.0.0.1:0"))
	other := startServer(t, options(t.TempDir(), ""))
	strange, err := other.ControlCredentials()
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(s.ClientURL()); err == nil {
		nc.Close()
		t.Error("no credentials are enough")
	}
	_, err = kv.Connect(t.Context(), kv.ConnOptions{URL: s.ClientURL(), Credentials: strange, Name: "strange", Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, schema.ErrRefused) {
		t.Errorf("credentials of another cluster: %v", err)
	}
}

// Nothing of what is stored stands in the files in the clear, and of a Secret
// not even in the values.
func TestFilesAreEncrypted(t *testing.T) {
	dir := t.TempDir()
	o := options(dir, "")
	s := startServer(t, o)
	_, store := openStore(t, s)
	sealer, err := kv.NewSealer(filepath.Join(dir, "cluster.age"))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sealer.Seal(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "password"},
		Data:       map[string][]byte{"key": []byte("opensesame")},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"opensesame", "b3BlbnNlc2FtZQ"} {
		if bytes.Contains(text, []byte(clear)) {
			t.Errorf("the sealed Secret holds %q", clear)
		}
	}
	put(t, store, "secrets.default.password", string(text))
	put(t, store, "configmaps.default.a", `{"data":"plainly readable"}`)
	s.Close()
	for file := range tree(t, o.Dir) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, clear := range []string{"opensesame", "b3BlbnNlc2FtZQ", "plainly readable"} {
			if bytes.Contains(content, []byte(clear)) {
				t.Errorf("%s holds %q", file, clear)
			}
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := options(t.TempDir(), "")
	if s, err := Start(ctx, o); err == nil {
		s.Close()
	}
	startServer(t, o) // whatever came of it, the store is free again
}

func TestCloseIsQuick(t *testing.T) {
	s := startServer(t, options(t.TempDir(), "127.0.0.1:0"))
	_, store := openStore(t, s)
	for i := range 50 {
		put(t, store, fmt.Sprintf("configmaps.default.c%d", i), "{}")
	}
	began := time.Now()
	s.Close()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("closing took %s", d)
	}
}
