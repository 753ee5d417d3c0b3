package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// stacks writes what every goroutine of the daemon does into the directory
// PAWL_STACKS, if that is set: for a test that waits for what never comes.
func (c *cluster) stacks() {
	dir := os.Getenv("PAWL_STACKS")
	if dir == "" {
		return
	}
	if err := c.writeStacks(dir); err != nil {
		c.t.Logf("no stacks: %v", err)
	}
}

func (c *cluster) writeStacks(dir string) error {
	token, err := os.ReadFile(filepath.Join(c.data, "token"))
	if err != nil {
		return err
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+c.http+"/debug/pprof/goroutine?debug=2", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	name := strings.ReplaceAll(c.t.Name(), "/", "_") + "." + filepath.Base(c.dir) + ".txt"
	return os.WriteFile(filepath.Join(dir, name), []byte(readAll(c.t, response)), 0o600)
}
