# nodeagent: `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
TOOL := go tool -modfile=tools/go.mod
# The nodes of the e2e tier's cluster need control groups of version 1; elsewhere its tests say so and are skipped.
E2E := $(and $(wildcard /sys/fs/cgroup/memory/cgroup.procs),$(shell echo ,e2e))
TIERS := libvirt,vm,cluster,runtime,bpf,netns$(E2E)
# What holds something to a time, or has machines that starve beside others.
ALONE := cmd/nodeagent test/e2e test/libvirt test/peers test/telemetry

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  %-12s %s\n", $$1, $$2 }'

.PHONY: build
build: ## build bin/nodeagent, static, for this machine
	go build -trimpath -o bin/nodeagent ./cmd/nodeagent

.PHONY: cross
cross: ## build for every architecture that is supported
	for arch in amd64 arm64; do GOOS=linux GOARCH=$$arch go build -trimpath -o bin/nodeagent-linux-$$arch ./cmd/nodeagent; done

.PHONY: image
image: ## the container images as bin/image/*.oci.tar, with bills of materials; IMAGE names the agent's
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch go build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/image/$$arch/ ./cmd/...; done
	image='$(or $(IMAGE),localhost/nodeagent:devel)'; \
	go run ./deploy/image --name "$$image" --out bin/image bin/image/{amd64,arm64}/nodeagent; \
	go run ./deploy/image --name "$${image%:*}-controller:$${image##*:}" --out bin/image bin/image/{amd64,arm64}/nodeagent-controller

.PHONY: demo
demo: ## show the agent at work on three real VMs; DEMO_SECONDS=20 ends it by itself
	@echo '>> looking for what the demo needs: QEMU and libvirt' >&2
	@test/install.sh libvirt
	@echo '>> building the agent and the demo' >&2
	@go build -trimpath -o bin/nodeagent ./cmd/nodeagent
	@go build -o bin/demo ./test/demo
	@bin/demo --agent bin/nodeagent --seconds '$(or $(DEMO_SECONDS),0)'

.PHONY: test-unit
test-unit: ## the tests that need nothing: no root, no network
	go test ./...

.PHONY: test
test: prepare ## every test, from nothing to green (root)
	@export NODEAGENT_TEST_REQUIRE=$(TIERS); status=0; \
	go test -timeout 30m $$(go list ./... | grep -vE '$(subst $() ,|,$(ALONE:%=/%$$))') || status=1; \
	echo '>> what needs the machine for itself, one after the other' >&2; \
	go test -timeout 30m -p 1 $(ALONE:%=./%) || status=1; \
	exit $$status

.PHONY: prepare
prepare: ## install and build what the tests of every tier need
	@echo '>> looking for the packages that the tests need' >&2
	@test/install.sh libvirt vm runtime $(if $(E2E),e2e)
	@go build -o bin/bed ./test/bed
	@bin/bed vm prepare
	@bin/bed cluster prepare $(if $(E2E),--nodes)

.PHONY: e2e
e2e: ## a cluster of two nodes, the agent in it as an image, installed both ways (root; the first time compiles Kubernetes)
	@test/install.sh e2e
	@go build -o bin/bed ./test/bed
	@bin/bed cluster prepare --nodes
	NODEAGENT_TEST_REQUIRE=e2e go test -timeout 20m -v ./test/e2e

.PHONY: race
race: ## the unit tests, and the agent among real VMs, under the race detector (root; needs a C compiler)
	CGO_ENABLED=1 go test -race ./internal/... ./pkg/... ./cmd/...
	@test/install.sh libvirt
	CGO_ENABLED=1 go build -race -o bin/nodeagent-race ./cmd/nodeagent
	GORACE=halt_on_error=1 NODEAGENT_TEST_AGENT=$(CURDIR)/bin/nodeagent-race NODEAGENT_TEST_REQUIRE=libvirt \
		go test ./test/telemetry -run 'TestTwentyScrapersAtOnce|TestMachinesComeAndGo|TestLibvirtGoesAndComesBack|TestPodsComeAndGo'

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (default 10s)
	@for package in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$package/*_test.go | cut -d' ' -f2); do \
			echo ">> $$package $$target"; \
			go test $$package -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),10s) -fuzzminimizetime 10x; \
		done; \
	done

.PHONY: bench
bench: build ## measure a scrape beside Debian's exporter on BENCH_DOMAINS real VMs (default 200: 10 GB, 20 minutes), then all Go benchmarks (root)
	@test/install.sh libvirt >&2
	@go build -o bin/bench ./test/bench
	@bin/bench --agent bin/nodeagent --domains '$(or $(BENCH_DOMAINS),200)' --working '$(or $(BENCH_WORKING),0)'
	@go test -run '^$$' -bench . -benchmem ./pkg/... ./internal/... | bin/bench --go

.PHONY: generate
generate: ## make the generated code, CRDs and documents anew
	$(TOOL) controller-gen object paths=./api/...
	$(TOOL) controller-gen crd paths=./api/... output:crd:dir=deploy/daemonset/base/crds
	go test ./pkg/metrics -update
	go test ./pkg/kvmcheck -run TestRecordedHosts -update
	go test ./internal/node -run TestRecordedHosts -update
	go test ./cmd/nodeagent -run TestReference -update
	cd deploy/monitoring/dashboard && go run . >../dashboard.json

.PHONY: bpf
bpf: ## compile the BPF programs anew; only when their C source has changed
	@test/install.sh bpf
	go generate ./internal/bpf
	cd internal/bpf && sha256sum *.c *.h *.o >objects.sum

.PHONY: fmt
fmt: ## format the code
	$(TOOL) gofumpt -w .

.PHONY: verify
verify: ## formatting, lint, generated files, tidy modules, repository rules
	@echo '>> gofumpt'
	@test -z "$$($(TOOL) gofumpt -l . | tee /dev/stderr)"
	@echo '>> golangci-lint'
	@$(TOOL) golangci-lint run --allow-parallel-runners ./...
	@echo '>> go mod tidy'
	@for dir in . tools test/cluster/tools test/cluster/packaging test/cluster/multus test/plugins test/nfd deploy/monitoring/dashboard; do (cd $$dir && go mod tidy -diff); done
	@echo '>> generated files'
	@before=$$(git status --porcelain | sha256sum; git diff | sha256sum); $(MAKE) -s generate >/dev/null; \
		test "$$before" = "$$(git status --porcelain | sha256sum; git diff | sha256sum)" || { git status --short; echo 'run make generate and commit'; exit 1; }
	@echo '>> cross-compilation'
	@$(MAKE) -s cross
	@echo '>> repository rules, links in documents'
	@go test .
