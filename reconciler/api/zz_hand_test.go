package api

import ("testing";"os";"net/http/httptest";"net";"os/signal";"syscall")

func TestZZHand(t *testing.T) {
	if os.Getenv("RESTHAND") == "" { return }
	d := newDoor(t).furnish()
	l, err := net.Listen("tcp", "127.0.0.1:17999")
	if err != nil { t.Fatal(err) }
	s := httptest.NewUnstartedServer(guard(d.server)); s.Listener = l; s.StartTLS()
	defer s.Close()
	c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGTERM); <-c
	d.server.Close()
}
