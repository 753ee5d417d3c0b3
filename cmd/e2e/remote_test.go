package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRemote follows a repository that is not the built-in one: a push there is
// seen when the webhook says "look now", long before the next poll.
func TestRemote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := prepareCluster(t, "--git-url", "file://"+dir+"/origin.git", "--git-path", "clusters/one", "--git-interval", "1h")
	c.git("", "init", "-q", "--bare", "-b", "main", dir+"/origin.git")
	c.git("", "clone", "-q", dir+"/origin.git", c.work)
	c.push(map[string]string{"clusters/one/a.yaml": sleepers("a", 1), "clusters/two/b.yaml": "not: a manifest\n"})
	c.start()
	c.running("a-", 1, 60*time.Second)

	c.push(map[string]string{"clusters/one/a.yaml": sleepers("a", 2)})
	c.webhook()
	c.running("a-", 2, 20*time.Second)

	// A commit that is refused shows in the history and changes nothing.
	c.push(map[string]string{"clusters/one/a.yaml": "kind: Nonsense\n"})
	c.webhook()
	c.eventually(20*time.Second, "pawl history shows the refusal", func() error {
		out, err := c.pawl("history", "--limit", "1", "-o", "wide")
		if err != nil {
			return err
		}
		if !strings.Contains(out, "Refused") || !strings.Contains(out, "a.yaml:1") {
			return os.ErrNotExist
		}
		return nil
	})
	c.running("a-", 2, time.Second)
}

// webhook says "look now" with the token.
func (c *cluster) webhook() {
	c.t.Helper()
	token, err := os.ReadFile(filepath.Join(c.data, "token"))
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodPost, "http://"+c.http+"/webhook", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		c.t.Fatalf("webhook: %s", response.Status)
	}
}
