# Every target does its own set-up and works from a fresh clone. `make help` lists them.

CARGO ?= cargo
# `host-tuple` in .cargo/config.toml puts binaries below a folder named after the target.
TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET_DIR)/$(TARGET)/debug
# Property tests see the same cases in every run, so that a change is judged by what it changes; `make fuzz` looks for new ones.
PROPERTIES := PROPTEST_RNG_SEED=1

.PHONY: help
help: ## Lists the targets.
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

.PHONY: setup
setup:
	@scripts/setup.sh build

.PHONY: build
build: setup ## Builds all programs.
	$(CARGO) build --locked --workspace --bins

.PHONY: demo
demo: build ## Runs a whole mesh with a sample shop on this machine; Ctrl-C ends it (ARGS=--prometheus adds a Prometheus).
	$(if $(findstring --prometheus,$(ARGS)),@scripts/setup.sh prometheus)
	$(BIN)/weft demo $(ARGS)

.PHONY: test
test: ## Runs all checks and tests but the long ones (`make fuzz`, `make interop`, `make e2e`).
	@scripts/setup.sh build test
	$(MAKE) lint
	$(CARGO) build --locked --workspace --bins
	# Without an Envoy or a gRPC to run, their tests are skipped.
	WEFT_ENVOY="$$(scripts/envoy.sh || true)" WEFT_GRPC_PYTHON="$$(scripts/grpcio.sh || true)" $(PROPERTIES) $(CARGO) test --locked --workspace --no-fail-fast

.PHONY: lint
lint: ## Formatting, clippy, documentation and licences.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	scripts/deny.sh

.PHONY: fuzz
fuzz: ## Looks for new cases: property tests at large, then the HTTP/1.1 codec's fuzzer for SECONDS (default 60).
	@scripts/setup.sh build fuzz
	PROPTEST_CASES=20000 $(CARGO) test --locked -p weft-rules --test properties
	PROPTEST_CASES=20000 $(CARGO) test --locked -p weft-proxy -p weft-control-plane --lib -- properties detect any_order
	scripts/fuzz.sh $(or $(SECONDS),60)

.PHONY: images
images: setup ## Builds an image of each program as an OCI archive, without Docker (PROFILE=dev builds faster).
	scripts/images.sh $(or $(PROFILE),release)

.PHONY: cluster
cluster: ## Starts a genuine Kubernetes on this machine and leaves it running (needs root; the first build takes 5 to 20 minutes).
	@scripts/setup.sh cluster
	e2e/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## Ends that Kubernetes and removes every trace of it.
	e2e/cluster/down.sh

.PHONY: e2e-smoke
e2e-smoke: ## Installs the mesh on a genuine Kubernetes ($KUBECONFIG's or its own) and sees that it works.
	e2e/kubernetes/run.sh smoke

.PHONY: e2e
e2e: ## All tests on a genuine Kubernetes: rollouts, outages, identities, workloads, CNI mode (ARGS='--only zone': some).
	e2e/kubernetes/run.sh all $(ARGS)

.PHONY: e2e-scale
e2e-scale: ## What the control plane needs in a cluster of 1,000 Services and 5,000 pods.
	e2e/kubernetes/run.sh scale

.PHONY: interop
interop: ## weft-proxy under a control plane made of go-control-plane, and beside an Envoy with the same start-up files.
	@scripts/setup.sh build
	$(CARGO) build --locked -p weft-proxy -p weft-control-plane -p weft-shop --bins
	WEFT_GO_CONTROL_PLANE="$$(scripts/go-control-plane.sh)" WEFT_ENVOY="$$(scripts/envoy.sh)" \
		$(CARGO) test --locked -p weft-e2e --test control_planes --test envoy

.PHONY: bench
bench: ## Measures pairs of proxies beside Envoy and HAProxy (docs/performance.md); ARGS=--help lists what can be said.
	@scripts/setup.sh build bench
	$(CARGO) build --locked --release -p weft-proxy
	$(CARGO) build --locked -p weft-bench
	# Where no Envoy can be had, it is left out.
	envoy="$$(scripts/envoy.sh || true)"; $(BIN)/weft-bench proxies --weft $(TARGET_DIR)/$(TARGET)/release/weft-proxy \
		--haproxy "$$(PATH="$$PATH:/usr/sbin" command -v haproxy)" $${envoy:+--envoy "$$envoy"} $(ARGS)

.PHONY: bench-control
bench-control: setup ## Measures the control plane: an edit's way to 2,000 sidecars, memory per sidecar (docs/performance.md).
	$(CARGO) build --locked --release -p weft-control-plane -p weft-bench
	$(TARGET_DIR)/$(TARGET)/release/weft-bench control --control-plane $(TARGET_DIR)/$(TARGET)/release/weft-control-plane $(ARGS)
