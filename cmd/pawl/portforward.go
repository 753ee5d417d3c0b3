package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	tunnel "k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/kubectl/pkg/cmd/portforward"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/streaming/pkg/httpstream"
)

// newPortForward is kubectl's command with a forwarder of its own, for which see
// forwarder.
func newPortForward(f cmdutil.Factory, s genericiooptions.IOStreams) *cobra.Command {
	cmd := portforward.NewCmdPortForward(f, s)
	cmd.Flags().Lookup("address").Usage = "Addresses to listen on, with commas between them: IP addresses, or localhost, which is 127.0.0.1 and ::1, at least one of them"
	cmd.Run = func(cmd *cobra.Command, args []string) {
		o := portforward.NewDefaultPortForwardOptions(s)
		addresses, err := cmd.Flags().GetStringSlice("address")
		cmdutil.CheckErr(err)
		o.Address = addresses
		o.PortForwarder = forwarder{s}
		cmdutil.CheckErr(o.Complete(f, cmd, args))
		cmdutil.CheckErr(o.Validate())
		cmdutil.CheckErr(o.RunPortForwardContext(cmd.Context()))
	}
	return cmd
}

// A forwarder forwards ports. Unlike kubectl's own it makes a session for each
// connection: one that fails, or that nobody reads, leaves the others alone. A
// session without connections tells when the pod or the server is gone.
type forwarder struct{ genericiooptions.IOStreams }

// ForwardPorts is what portforward.PortForwardOptions calls.
func (w forwarder) ForwardPorts(method string, u *url.URL, o portforward.PortForwardOptions) error {
	dial := func() (httpstream.Connection, error) { return dialPod(method, u, o.Config) }
	watch, err := dial()
	if err != nil {
		return fmt.Errorf("error upgrading connection: %w", err)
	}
	defer watch.Close()
	listeners, err := w.listen(o)
	if err != nil {
		return err
	}
	x := &forwarding{IOStreams: w.IOStreams, dial: dial, open: map[io.Closer]struct{}{}}
	for _, l := range listeners {
		x.running.Go(func() { x.accept(l) })
	}
	defer x.running.Wait()
	defer x.closeAll()
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if o.ReadyChannel != nil {
		close(o.ReadyChannel)
	}
	select {
	case <-o.StopChannel:
		return nil
	case <-watch.CloseChan():
		return errors.New("lost connection to pod")
	}
}

// dialPod makes a session: inside a WebSocket, or without where something on the
// way knows none.
func dialPod(method string, u *url.URL, config *rest.Config) (httpstream.Connection, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	dialer := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, method, u)
	tunnelled, err := tunnel.NewSPDYOverWebsocketDialerForStreaming(u, config)
	if err != nil {
		return nil, err
	}
	dialer = tunnel.NewFallbackDialerForStreaming(tunnelled, dialer, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	conn, _, err := dialer.Dial(tunnel.PortForwardProtocolV1Name)
	return conn, err
}

// A forwardedPort is one that is listened to.
type forwardedPort struct {
	net.Listener
	local, remote uint16
}

// listen opens every port on every address, or none.
func (w forwarder) listen(o portforward.PortForwardOptions) (all []forwardedPort, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	for _, text := range o.Ports {
		local, remote, err := portPair(text)
		if err != nil {
			return all, err
		}
		for _, address := range o.Address {
			some, err := w.listenOn(address, local, remote)
			all = append(all, some...)
			if err != nil {
				return all, err
			}
			local = some[0].local // a port that was chosen is the same on all addresses
		}
	}
	return all, nil
}

func (w forwarder) listenOn(address string, local, remote uint16) (all []forwardedPort, err error) {
	hosts := []string{address}
	if address == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	} else if net.ParseIP(address) == nil {
		return nil, fmt.Errorf("%s is not a valid IP", address)
	}
	for _, host := range hosts {
		l, fault := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(local))))
		if fault != nil {
			err = fault
			continue
		}
		local = uint16(l.Addr().(*net.TCPAddr).Port) //nolint:errcheck,forcetypeassert // it is TCP
		all = append(all, forwardedPort{l, local, remote})
		fmt.Fprintf(w.Out, "Forwarding from %s -> %d\n", l.Addr(), remote)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("unable to listen on port %d: %w", local, err)
	}
	return all, nil
}

// portPair reads [LOCAL:]REMOTE; an empty or zero LOCAL is chosen by the system.
func portPair(text string) (local, remote uint16, err error) {
	l, r, two := strings.Cut(text, ":")
	if !two {
		r = l
	}
	if two && l == "" {
		l = "0"
	}
	parse := func(s string) uint16 {
		n, fault := strconv.ParseUint(s, 10, 16)
		if fault != nil {
			err = fmt.Errorf("%q is no port, and no pair of ports such as 8080:80", text)
		}
		return uint16(n)
	}
	local, remote = parse(l), parse(r)
	if err == nil && remote == 0 {
		err = errors.New("remote port must be > 0")
	}
	return local, remote, err
}

// A forwarding is all connections of one command.
type forwarding struct {
	genericiooptions.IOStreams
	dial    func() (httpstream.Connection, error)
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{}
}

// accept ends when the listener is closed.
func (f *forwarding) accept(l forwardedPort) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			fmt.Fprintf(f.ErrOut, "error accepting a connection on port %d: %v\n", l.local, err)
			return
		}
		fmt.Fprintf(f.Out, "Handling connection for %d\n", l.local)
		f.running.Go(func() {
			defer conn.Close()
			if err := f.carry(conn, l.remote); err != nil {
				fmt.Fprintf(f.ErrOut, "an error occurred forwarding %d -> %d: %v\n", l.local, l.remote, err)
			}
		})
	}
}

// hold has c closed when the command ends; false: it has ended.
func (f *forwarding) hold(c io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.open[c] = struct{}{}
	}
	return !f.closed
}

func (f *forwarding) release(c io.Closer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
}

func (f *forwarding) closeAll() {
	f.mu.Lock()
	f.closed = true
	all := f.open
	f.open = map[io.Closer]struct{}{}
	f.mu.Unlock()
	for c := range all {
		abort(c)
	}
}

// carry is one connection, from its session to both its ends.
func (f *forwarding) carry(conn net.Conn, port uint16) error {
	session, err := f.dial()
	if err != nil {
		return err
	}
	defer session.Close()
	for _, c := range []io.Closer{conn, session} {
		if !f.hold(c) {
			return nil
		}
		defer f.release(c)
	}
	h := http.Header{}
	h.Set(corev1.PortHeader, strconv.Itoa(int(port)))
	h.Set(corev1.PortForwardRequestIDHeader, "0")
	h.Set(corev1.StreamType, corev1.StreamTypeError)
	fault, err := session.CreateStream(h)
	if err != nil {
		return err
	}
	fault.Close() // nothing is said there
	h.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := session.CreateStream(h)
	if err != nil {
		return err
	}
	x := &crossing{conn: conn, session: session, data: data, fault: fault}
	defer x.up.Wait()
	x.up.Go(x.send)
	return x.receive()
}

// A crossing is one connection that is carried.
type crossing struct {
	conn        net.Conn // of a program here
	session     httpstream.Connection
	data, fault httpstream.Stream

	up   sync.WaitGroup
	said atomic.Bool // the program here says no more, and the pod was told
}

// send carries what the program here says.
func (x *crossing) send() {
	if _, err := io.Copy(x.data, x.conn); err != nil {
		_ = x.data.Reset()
		return
	}
	x.said.Store(true)
	_ = x.data.Close()
}

// receive carries what the pod says. An end that is none, because the pod's
// program, the pod or the server is gone, is no end for the program here.
func (x *crossing) receive() error {
	if _, err := io.Copy(x.conn, x.data); err != nil {
		_ = x.data.Reset()
		return nil // the program here has gone, and wants to hear nothing
	}
	// What the pod has ended, it may still listen to; a program here that waits
	// for it sees the end. Where both have ended it is known at once how.
	cut := x.wasCut()
	if tcp, ok := x.conn.(*net.TCPConn); ok && !cut && !x.said.Load() {
		_ = tcp.CloseWrite()
	}
	text, err := io.ReadAll(x.fault)
	if cut || len(text) > 0 || x.lost() {
		abort(x.conn)
	} else {
		x.conn.Close()
	}
	if err == nil && len(text) > 0 {
		err = errors.New(string(text))
	}
	return err
}

// wasCut says whether the pod's half ended without its end. That the other
// half is ended here is said before it is done, and so asked last.
func (x *crossing) wasCut() bool {
	s, ok := x.data.(interface{ IsFinished() bool })
	return x.lost() || ok && s.IsFinished() && !x.said.Load()
}

func (x *crossing) lost() bool {
	select {
	case <-x.session.CloseChan():
		return true
	default:
		return false
	}
}

// abort ends a connection so that the program here does not take what it heard
// for everything.
func abort(c io.Closer) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}
