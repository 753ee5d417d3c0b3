package manifest

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ChildMain is called first by the main function of every binary that compiles
// manifests, and by TestMain of every test that does. In the process that was
// started to evaluate CUE it does that, within its limits, and exits; in any
// other it returns at once.
func ChildMain() {
	if os.Getenv(childMarker) == "" {
		return
	}
	if err := childMain(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childMain(in io.Reader, out io.Writer) error {
	if err := limitChild(); err != nil {
		return err
	}
	// The parent kills us in time; this is for when it died itself.
	time.AfterFunc(childWall, func() { os.Exit(1) })
	var request childRequest
	if err := json.NewDecoder(in).Decode(&request); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	encoder := json.NewEncoder(out)
	index := 0
	answer := func(evaluate func() childResult) error {
		if err := encoder.Encode(childResult{Begin: true, Index: index}); err != nil {
			return err
		}
		result := evaluate()
		result.Index = index
		index++
		return encoder.Encode(result)
	}
	for _, instance := range request.Instances {
		if err := answer(func() childResult { return evaluateInstance(instance.Files) }); err != nil {
			return err
		}
	}
	if len(request.Objects) == 0 {
		return nil
	}
	constraints := newConstraints(request.Constraints)
	for _, object := range request.Objects {
		if err := answer(func() childResult { return constraints.apply(object) }); err != nil {
			return err
		}
	}
	return nil
}

// limitChild gives up what evaluating CUE does not need, for good.
func limitChild() error {
	mapped, err := mappedBytes()
	if err != nil {
		return err
	}
	for _, l := range []struct {
		resource int
		limit    uint64
	}{
		{unix.RLIMIT_AS, mapped + childMemory},
		{unix.RLIMIT_CPU, childCPU},
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_FSIZE, 0}, // pipes are not files
	} {
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: l.limit, Max: l.limit}); err != nil {
			return fmt.Errorf("limit the CUE child: %w", err)
		}
	}
	return nil
}

// mappedBytes is the address space that the process has already: Go's runtime
// reserves more than a gigabyte of it without ever using it.
func mappedBytes() (uint64, error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, fmt.Errorf("limit the CUE child: %w", err)
	}
	first, _, _ := strings.Cut(string(raw), " ")
	pages, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("limit the CUE child: %w", err)
	}
	return pages * uint64(os.Getpagesize()), nil
}
