# What there is to do here. "make" alone lists it.

FUZZTIME ?= 60s
NODES    ?= 3
GO       ?= go

.DEFAULT_GOAL := help
.PHONY: help setup tools build demo test test-short lint fuzz bench bench-compare compose-check clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS='	' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: ## install what is missing: PostgreSQL, a C compiler, drivers to test with (as root on Debian, otherwise it says what)
	@internal/tools/setup.sh drivers

tools:
	@internal/tools/setup.sh

build: tools ## build bin/raftproxy
	$(GO) build -o bin/raftproxy ./cmd/raftproxy

demo: build ## run NODES=3 nodes with a throw-away PostgreSQL each, until Ctrl-C
	@bin/raftproxy demo --nodes $(NODES)

test: setup ## run all tests with the race detector
	$(GO) test -race -timeout 20m ./...

test-short: tools ## run the tests that take no groups of real processes, without the race detector
	$(GO) test -short -timeout 10m ./...

lint: ## check the code's form, and which package may import which
	@internal/tools/lint.sh

fuzz: tools ## run every fuzz target for FUZZTIME=60s
	@internal/tools/fuzz.sh $(FUZZTIME)

bench: tools ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem -timeout 60m ./...

bench-compare: build ## measure beside PgBouncer and HAProxy, and write the tables of docs/performance.md
	$(GO) run ./bench/compare -suite all -into docs/performance.md

compose-check: ## start docker-compose.yml for real and see that it keeps its promises
	deploy/compose-check.sh

clean: ## remove what was built
	rm -rf bin
