package gitsource

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func newKey(tb testing.TB) (ssh.Signer, []byte) {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		tb.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// sshServer lets the client's key run git upload-pack on one repository, as a
// forge does. It returns the server's address.
func sshServer(t *testing.T, host ssh.Signer, client ssh.PublicKey, repository string) string {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if c.User() != "git" || string(key.Marshal()) != string(client.Marshal()) {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serveSSH(c, config, repository) })
		}
	})
	return listener.Addr().String()
}

func serveSSH(c net.Conn, config *ssh.ServerConfig, repository string) {
	defer c.Close()
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		for request := range requests {
			if request.Type != "exec" || !strings.HasPrefix(string(request.Payload[4:]), "git-upload-pack ") {
				request.Reply(request.Type == "env", nil)
				continue
			}
			request.Reply(true, nil)
			cmd := exec.Command("git", "upload-pack", repository)
			cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
			stdin, err := cmd.StdinPipe()
			if err == nil && cmd.Start() == nil {
				go func() { io.Copy(stdin, channel); stdin.Close() }()
				cmd.Wait()
			}
			channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{0}))
			channel.Close()
		}
	}
}

func TestFollowOverSSH(t *testing.T) {
	work := newWork(t)
	first := commit(t, work, "First", map[string]string{"a.yaml": "1"})
	hostKey, _ := newKey(t)
	clientKey, private := newKey(t)
	address := sshServer(t, hostKey, clientKey.PublicKey(), work)
	dir := t.TempDir()
	keyFile, known := filepath.Join(dir, "key"), filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(keyFile, private, 0o600); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("ssh://git@%s/repository.git", address)
	f := startFollowing(t, RemoteOptions{URL: url, CredentialsFile: keyFile})
	wantProblem := func(text string) {
		t.Helper()
		eventually(t, text, func() bool { f.remote.LookNow(); return strings.Contains(f.remote.Status().Problem, text) })
	}

	wantProblem("known hosts")
	other, otherPrivate := newKey(t)
	writeKnown := func(key ssh.PublicKey) {
		line := knownhosts.Line([]string{knownhosts.Normalize(address)}, key)
		if err := os.WriteFile(known, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeKnown(other.PublicKey()) // somebody else answers at this address
	wantProblem("key mismatch")
	f.wantNothing()

	writeKnown(hostKey.PublicKey())
	f.remote.LookNow()
	f.want(first)
	second := commit(t, work, "Second", map[string]string{"a.yaml": "2"})
	f.remote.LookNow()
	f.want(second)

	if err := os.WriteFile(keyFile, otherPrivate, 0o600); err != nil {
		t.Fatal(err)
	}
	wantProblem("unable to authenticate")
	if s := f.remote.Status(); s.Commit != second || strings.Contains(s.Problem, "PRIVATE") || strings.Contains(s.URL, "git@") {
		t.Errorf("%+v", s)
	}
	if err := os.WriteFile(keyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantProblem("cannot be read")
	f.stop()
	if text := f.log.String(); strings.Contains(text, "git@") || strings.Contains(text, "no key") {
		t.Errorf("logged:\n%s", text)
	}
}
