package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// stopWithin bounds how long `pawld down` waits for the daemon to end.
const stopWithin = 30 * time.Second

func newDown() *cobra.Command {
	c := &upConfig{}
	purge := false
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop and remove everything that an instance runs on this machine",
		Long: `Stop the daemon, then remove every container, network, mount and process of the
instance on this machine. The repository, the store and pulled images stay, so
that the next "pawld up" brings the same pods back; --purge removes them too.`,
		Example: `  pawld down
  pawld down --purge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := settle(cmd); err != nil {
				return err
			}
			return down(cmd.Context(), c, purge, cmd.OutOrStdout())
		},
	}
	c.instance.flags(cmd.Flags())
	cmd.Flags().StringVar(&c.containerd, "containerd", "", "address of the containerd that the instance uses (default: the one it was started with)")
	cmd.Flags().StringVar(&c.podCIDR, "pod-cidr", "10.42.0.0/24", "range of the pods' addresses on this node")
	cmd.Flags().BoolVar(&purge, "purge", false, "remove the instance's data too: repository, store, keys, images")
	return cmd
}

// down stops the daemon and removes containers first; what they stand on is
// removed only after them.
func down(ctx context.Context, c *upConfig, purge bool, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("down removes containers and networks, and needs root: sudo pawld down")
	}
	if err := c.absolute(); err != nil {
		return err
	}
	if markOf(c.dataMark()) == "" && markOf(c.runMark()) == "" {
		fmt.Fprintf(out, "no instance is in %s: nothing to remove\n", c.data)
		return nil
	}
	if err := c.instance.open(); err != nil {
		return err
	}
	if err := c.stopDaemon(ctx, out); err != nil {
		return err
	}
	if c.containerd == "" {
		c.containerd = markOf(c.containerdFile())
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	release, err := c.makeRoom(ctx, log)
	if err != nil {
		return err
	}
	defer release()
	if err := c.removeContainers(ctx, log); err != nil {
		return err // what still runs keeps its network and volumes
	}
	if err := errors.Join(c.removeNetwork(ctx, log), c.removeVolumes(ctx)); err != nil {
		return err
	}
	if err := c.stopContainerd(ctx, log); err != nil {
		return err
	}
	if err := emptyDir(c.run, c.pidFile(), c.runMark()); err != nil {
		return err
	}
	if err := os.Remove(c.runMark()); err != nil {
		return err
	}
	fmt.Fprintln(out, "containers, network and mounts are removed")
	if !purge {
		fmt.Fprintln(out, "kept: "+c.data)
		return nil
	}
	return c.removeData(out)
}

// removeData removes the data directory and what is in it. The directory itself
// stays, empty, when it is somebody's arrangement: a link, or a mount point.
func (c *upConfig) removeData(out io.Writer) error {
	if err := emptyDir(c.data, c.dataMark()); err != nil {
		return err
	}
	if err := os.Remove(c.dataMark()); err != nil { // last: without it the rest would be nobody's
		return err
	}
	info, err := os.Lstat(c.data)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		fmt.Fprintln(out, "emptied, for it is a link: "+c.data)
		return nil
	}
	switch err := os.Remove(c.data); {
	case err == nil:
		fmt.Fprintln(out, "removed: "+c.data)
	case errors.Is(err, unix.EBUSY):
		fmt.Fprintln(out, "emptied, for it is a mount point: "+c.data)
	default:
		return err
	}
	return nil
}

// stopDaemon ends the daemon that holds the instance, if one does.
func (c *upConfig) stopDaemon(ctx context.Context, out io.Writer) error {
	held, err := c.locked()
	if err != nil || !held {
		return err
	}
	pid, err := strconv.Atoi(c.pid())
	if err != nil || pid <= 1 {
		return fmt.Errorf("a pawld holds %s, but %s does not say which; stop it first", c.data, c.pidFile())
	}
	fmt.Fprintf(out, "stopping pawld (pid %d)\n", pid)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop pawld (pid %d): %w", pid, err)
	}
	deadline := time.Now().Add(stopWithin)
	for held && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if held, err = c.locked(); err != nil {
			return err
		}
	}
	if held {
		return fmt.Errorf("pawld (pid %d) did not end within %s", pid, stopWithin)
	}
	return nil
}

// makeRoom makes this process the instance's only one, and room on its disk,
// which may be full: containerd needs some to forget a container. What the
// containers do ends first, or they would take it.
func (c *upConfig) makeRoom(ctx context.Context, log *slog.Logger) (release func(), err error) {
	held, err := c.instance.hold()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held()
		}
	}()
	runtime, err := c.runtime(c.address(log), nil, nil, log)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(runtime.EndAll(ctx), runtime.Close()); err != nil {
		return nil, err
	}
	if err := c.instance.spendReserve(); err != nil {
		return nil, err
	}
	// Both are only tried: volumes are removed again later, and told of then; the
	// number is for people who start a second down.
	_, _ = c.removeVolumes(ctx), c.instance.notePID()
	return held, nil
}

// address of the containerd that the containers are in.
func (c *upConfig) address(log *slog.Logger) string {
	if c.containerd != "" {
		return c.containerd
	}
	return c.daemon(log).Address()
}

// removeContainers starts the private containerd when it is dead: what it knows
// must be removed through it.
func (c *upConfig) removeContainers(ctx context.Context, log *slog.Logger) error {
	address := c.containerd
	if address == "" {
		daemon := c.daemon(log)
		if !daemon.Known() {
			return nil
		}
		if err := daemon.Start(ctx); err != nil {
			return err
		}
		address = daemon.Address()
	}
	net, err := c.network(log)
	if err != nil {
		return err
	}
	runtime, err := c.runtime(address, net, nil, log)
	if err != nil {
		return err
	}
	defer runtime.Close()
	return runtime.DestroyAll(ctx)
}

func (c *upConfig) removeNetwork(ctx context.Context, log *slog.Logger) error {
	net, err := c.network(log)
	if err != nil {
		return err
	}
	return net.Teardown(ctx)
}

func (c *upConfig) removeVolumes(ctx context.Context) error {
	v := c.volumes()
	held, err := v.Held(ctx)
	if err != nil {
		return err
	}
	var faults []error
	for _, uid := range held {
		faults = append(faults, v.Remove(ctx, uid))
	}
	return errors.Join(faults...)
}

func (c *upConfig) stopContainerd(ctx context.Context, log *slog.Logger) error {
	if c.containerd != "" {
		return nil
	}
	return c.daemon(log).Stop(ctx)
}

// emptyDir removes what is in dir but for some files, after unmounting what is
// mounted there; a mount that stays makes it fail rather than reach into it.
func emptyDir(dir string, but ...string) error {
	if err := unmountBelow(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); !slices.Contains(but, path) {
			faults = append(faults, os.RemoveAll(path))
		}
	}
	return errors.Join(faults...)
}
