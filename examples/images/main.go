// Command images builds the images that the examples and tests run, either as
// archives for `pawl image import` or as a registry that stands in for docker.io.
//
//	go run ./examples/images -out /tmp/images hello nginx:1.16.1
//	go run ./examples/images -serve 127.0.0.1:5000
//	pawld up --registry-mirror docker.io=http://127.0.0.1:5000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/pawl-project/pawl/examples/images/build"
)

func main() {
	out := flag.String("out", "", "write each image as an archive into this directory")
	serve := flag.String("serve", "", "serve the images as a registry at this address")
	list := flag.Bool("list", false, "list the images that can be built")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: images -out DIR IMAGE...\n       images -serve ADDRESS [IMAGE...]\n       images -list\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *out, *serve, *list, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, serve string, list bool, names []string) error {
	switch {
	case list:
		fmt.Println(strings.Join(build.Names(), "\n"))
		return nil
	case out != "":
		if len(names) == 0 {
			return errors.New("which images? -list shows what can be built")
		}
		return write(ctx, out, names)
	case serve != "":
		return runRegistry(ctx, serve, names)
	default:
		return errors.New("say -out DIR, -serve ADDRESS or -list")
	}
}

// write writes one archive for each image: hello.tar, nginx-1.16.1.tar.
func write(ctx context.Context, dir string, names []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	images, err := build.Images(ctx, names...)
	if err != nil {
		return err
	}
	for _, image := range names {
		tag, err := name.NewTag(image)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, strings.ReplaceAll(image, ":", "-")+".tar")
		if err := tarball.WriteToFile(file, tag, images[image]); err != nil {
			return fmt.Errorf("write %s: %w", file, err)
		}
		fmt.Println(file)
	}
	return nil
}

func runRegistry(ctx context.Context, address string, names []string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	r := build.NewRegistry()
	for _, image := range names {
		if err := r.Add(ctx, image); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	fmt.Printf("serving %d images; use --registry-mirror docker.io=http://%s\n", len(build.Names()), listener.Addr())
	return r.Run(ctx, listener)
}
