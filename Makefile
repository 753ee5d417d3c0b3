# Pawl's commands for people. `make help` lists them.

VERSION := $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
TOOLS   := bin/tools
# Where `make run` keeps its instance. Nothing but `pawld down` removes it.
DATA ?= $(CURDIR)/.pawl/data
RUN  ?= $(CURDIR)/.pawl/run
# Extra flags for go test, such as GOTEST="-run TestPush -v".
GOTEST ?=

export CGO_ENABLED := 0
# Root builds in a clone that is yours, where git tells Go nothing. The version
# is stamped by the linker instead.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

.DEFAULT_GOAL := help
.PHONY: help deps build test e2e bench lint fmt run demo clean root

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

deps: ## install what is missing beside Go: containerd, runc, git, busybox, curl (Debian packages)
	@.ci/deps

build: ## build bin/pawld and bin/pawl
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/pawld ./cmd/pawl

test: root deps $(TOOLS)/nats ## run every test, with real NATS, Git and containerd (as root)
	go test -count=1 -timeout 5m $(GOTEST) $$(go list ./... | grep -v /cmd/e2e)
	@# go test hides what a passing package prints; these counts, or that there were none, are to be seen.
	@go test -count=1 -v -run '^TestCorpus$$' ./schema/manifest
	$(E2E)

e2e: root deps $(TOOLS)/nats ## run only the end-to-end tests (as root)
	$(E2E)

bench: root deps ## measure: push to running, many pods, deletion, idle; then the packages' own benchmarks (as root)
	go test -count=1 -timeout 15m -run '^$$' -bench . -benchtime 1x $(GOTEST) ./cmd/e2e
	go test -count=1 -timeout 15m -run '^$$' -bench . $(GOTEST) $$(go list ./... | grep -v /cmd/e2e)

lint: $(TOOLS)/golangci-lint ## run the linters of .golangci.yml
	$(TOOLS)/golangci-lint run ./...

fmt: $(TOOLS)/golangci-lint ## format the code
	$(TOOLS)/golangci-lint fmt ./...

run: root deps build ## run Pawl with its data in ./.pawl (as root); Ctrl-C leaves the containers running
	@echo "to stop and remove the containers: bin/pawld down --data $(DATA) --run $(RUN)"
	bin/pawld up --data $(DATA) --run $(RUN)

demo: root deps build $(TOOLS)/nats ## push an example, see it serve, remove it again with Ctrl-C (as root)
	@examples/demo.sh

clean: ## remove what make made: bin/ and what a killed demo left; your data in ./.pawl stays
	@examples/demo.sh clean
	rm -rf bin

# The end-to-end tests own machine-wide things (containerd, network) and
# measure memory, so they run alone, after the others.
E2E = PATH="$(CURDIR)/$(TOOLS):$$PATH" go test -count=1 -parallel 4 -timeout 12m $(GOTEST) ./cmd/e2e

root:
	@[ "$$(id -u)" = 0 ] || { echo 'make: this target runs real containers and needs root: sudo -E env "PATH=$$PATH" make $(MAKECMDGOALS)' >&2; exit 1; }

# Tools have modules of their own below .ci, so that what they need does not
# decide what Pawl links.
$(TOOLS)/golangci-lint: .ci/lint/go.mod
	go build -C .ci/lint -o $(CURDIR)/$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(TOOLS)/nats: .ci/nats/go.mod
	go build -C .ci/nats -o $(CURDIR)/$@ github.com/nats-io/natscli/nats
