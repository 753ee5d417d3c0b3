package reconciler

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/reconciler/access"
)

// A room is how many requests may be answered at once: watches, logs and shells
// among them, which last. Each class may take less of it than the one before
// leaves, so that a push is heard when people fill the door, and administrators
// when viewers do; what is left of mostConnections is for those who come.
type room struct {
	viewers, viewer int // all users but administrators together, and one of them
	admins, admin   int // everybody together, and one administrator
	git             int // everybody and pushes
}

var doorRoom = room{viewers: 1280, viewer: 512, admins: 1792, admin: 1024, git: 1984}

// A crowd is who is being answered.
type crowd struct {
	room   room
	turned atomic.Uint64 // requests turned away, for /metrics

	mu      sync.Mutex // guards what follows
	all     int
	viewers int            // of all
	users   map[string]int // by name, those with none left out
}

func newCrowd(r room) *crowd { return &crowd{room: r, users: map[string]int{}} }

// people lets users through to next, each as far as there is room for it. It
// stands behind Guard.
func (c *crowd) people(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, _ := access.UserFrom(r.Context())
		if mine, ok := c.enter(u); !ok {
			c.turned.Add(1)
			w.Header().Set("Retry-After", "1")
			access.WriteStatus(w, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, crowded(u, mine))
			return
		}
		defer c.leave(u)
		defer hold(r)()
		next.ServeHTTP(w, r)
	})
}

func crowded(u access.User, mine int) string {
	if mine == 0 {
		return "the server has too many requests at once, try again"
	}
	return fmt.Sprintf("the user %q has %d requests open at once, and there is no room for more: end watches or logs, or try again", u.Name, mine)
}

// git does the same for pushes and fetches, and says so in Git's way.
func (c *crowd) git(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.enterGit() {
			c.turned.Add(1)
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the server has too many requests at once, try again", http.StatusTooManyRequests)
			return
		}
		defer c.leaveGit()
		defer hold(r)()
		next.ServeHTTP(w, r)
	})
}

// enter counts a request in, or says how many its user has already. Nobody may
// have more than what is still free, so that whoever has few finds a place
// beside those who take all they can.
func (c *crowd) enter(u access.User) (mine int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	free := c.room.admins - c.all
	most := c.room.admin
	if u.Role != access.Admin {
		free = min(free, c.room.viewers-c.viewers)
		most = c.room.viewer
	}
	mine = c.users[u.Name]
	if mine >= min(most, free) {
		return mine, false
	}
	c.users[u.Name]++
	c.all++
	if u.Role != access.Admin {
		c.viewers++
	}
	return mine, true
}

func (c *crowd) leave(u access.User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
	if u.Role != access.Admin {
		c.viewers--
	}
	if c.users[u.Name]--; c.users[u.Name] == 0 {
		delete(c.users, u.Name)
	}
}

func (c *crowd) enterGit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all >= c.room.git {
		return false
	}
	c.all++
	return true
}

func (c *crowd) leaveGit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all--
}

// figures are the crowd's lines of /metrics.
func (c *crowd) figures(w io.Writer) {
	c.mu.Lock()
	all, users := c.all, len(c.users)
	c.mu.Unlock()
	fmt.Fprintf(w, "# HELP pawl_door_requests Requests that are being answered, watches among them.\n# TYPE pawl_door_requests gauge\npawl_door_requests %d\n", all)
	fmt.Fprintf(w, "# HELP pawl_door_users Users that are being answered.\n# TYPE pawl_door_users gauge\npawl_door_users %d\n", users)
	fmt.Fprintf(w, "# HELP pawl_door_turned_away_total Requests answered with 429, because their user had too many at once.\n"+
		"# TYPE pawl_door_turned_away_total counter\npawl_door_turned_away_total %d\n", c.turned.Load())
}
