# Everything that a person or a machine does with this repository.
# `make` alone prints what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where the demo runs: `lab` (a cluster of its own on this machine) or `current`
# (the cluster of kubectl's current context).
CLUSTER ?= lab
KEEP ?= 0
# Of the images that `make images` writes.
TAG ?= dev

TARGET := $(or $(CARGO_TARGET_DIR),target)
LAB := $(abspath $(TARGET))/debug/lab
LOGS := $(TARGET)/logs

# 1: `make demo-down` takes away the kept demo of another clone, too.
FORCE ?= 0

export CLUSTER KEEP LAB FORCE

# $(call phase,NAME,ESTIMATE,COMMAND): says what runs and how long it may take;
# when it fails: what, why (the last lines) and where the whole log is.
define phase
@mkdir -p $(LOGS); began=$$SECONDS; log=$(LOGS)/$(1).log; \
printf '== %s (%s)\n' '$(1)' '$(2)'; \
if ( $(3) ) > >(tee "$$log") 2>&1; then \
  printf '== %s: done in %d s\n' '$(1)' $$((SECONDS - began)); \
else code=$$?; sleep 0.2; \
  printf '\n== %s FAILED after %d s (exit code %d). The whole log: %s\n' '$(1)' $$((SECONDS - began)) $$code "$$log" >&2; \
  exit $$code; fi
endef

.PHONY: help
help: ## Print this
	@echo "Steward: Kubernetes control planes as pods."; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo; echo "  make demo KEEP=1                       leave it running at the end"
	@echo "  make demo DATASTORE=postgresql         or mysql, nats, instead of etcd"
	@echo "  make demo CLUSTER=current IMAGE_APISERVER=... IMAGE_CONTROLLER=..."
	@echo "                                         the same on the cluster of kubectl's context; also"
	@echo "                                         IMAGE_ETCD=... where nodes cannot pull quay.io/coreos/etcd"

# A cluster that is there needs nothing of the lab.
demo_needs := $(if $(filter lab,$(CLUSTER)),tools programs)

.PHONY: demo-settings
demo-settings:
	@tests/demo/demo.sh check

.PHONY: demo
demo: demo-settings $(demo_needs) ## A cluster, Steward in it, a tenant's whole life, and nothing left (KEEP=1 keeps it)
	@tests/demo/demo.sh up

.PHONY: demo-down
demo-down: $(if $(filter lab,$(CLUSTER)),lab) ## Take away what `make demo KEEP=1` left
	@tests/demo/demo.sh down

.PHONY: test
test: tools lab-build lint ## Style, all tests (on real clusters of the lab), the chart
	$(call phase,test,10 to 20 min,tests/demo/totals.sh cargo test --locked --workspace --no-fail-fast)
	$(call phase,demo,5 min,tests/demo/judge.sh)

.PHONY: test-long
test-long: ## Field ownership against Kubernetes' library for longer (OPERATIONS=100000 each), and moves of tenants on a cluster
	$(call phase,test-long,10 min,OPERATIONS=$(or $(OPERATIONS),100000) cargo test --locked --package tests --test managed_fields -- --nocapture)
	$(call phase,test-long,5 min,cargo test --locked --package tests --test e2e -- migration)

.PHONY: conformance
conformance: tools lab ## Kubernetes' own conformance tests against a tenant with two workers (FOCUS=REGEX: only those)
	$(call phase,conformance-build,1 s when cached and 8 to 20 min from cold,$(LAB) build --conformance)
	$(call phase,conformance,40 to 60 min,cargo test --locked --workspace --test e2e -- conformance)

.PHONY: fuzz
fuzz: ## Every parser of what strangers send, for longer than in `make test` (CASES=100000 each)
	$(call phase,fuzz,as long as you like,PROPTEST_CASES=$(or $(CASES),100000) cargo test --locked --release --package apiserver --test parsers)

.PHONY: lint
lint: lab-build ## rustfmt, clippy, scripts, documents, the chart
	$(call phase,format,1 s,cargo fmt --all --check)
	$(call phase,clippy,1 to 6 min,cargo clippy --locked --workspace --all-targets -- -D warnings && cargo clippy --locked --workspace --no-default-features --bin lab -- -D warnings)
	$(call phase,scripts,10 s,for script in tests/*.sh tests/demo/*.sh charts/kubectl-tcp .ci/run; do bash -n $$script || exit 1; done; tests/demo/claims-test.sh)
	$(call phase,crates,1 s,tests/demo/crates.sh)
	$(call phase,docs,1 s,tests/demo/docs.sh)
	$(call phase,chart,5 s,tests/demo/chart.sh)

.PHONY: contract
contract: ## Which requirements of the wire contract does no test name? (WRITE=1 writes the page of its coverage)
	@tests/contract/coverage.sh $(if $(filter 1,$(WRITE)),--write)

.PHONY: bench
bench: tools lab-build ## Times against a bare kube-apiserver: target/bench/results.json
	$(call phase,bench,15 min,cargo bench --locked --package tests)

.PHONY: preflight
preflight: ## What is missing on this machine? (INSTALL=1 installs Debian's packages)
	@tests/preflight.sh $(if $(filter-out 0,$(INSTALL)),--install)
	@tests/demo/estimate.sh

# What the two commands begin with: small missing packages are installed, if that
# is possible and not refused with INSTALL=0.
.PHONY: tools
tools:
	@tests/preflight.sh $(if $(filter 0,$(INSTALL)),,--install)
	@tests/demo/estimate.sh

.PHONY: build
build: ## Compile both programs for use (release)
	$(call phase,build,2 to 10 min,cargo build --locked --release --package apiserver --package controller)

.PHONY: images
images: lab ## Archives of both images in target/images, loadable by docker, ctr and kind
	$(call phase,images,2 to 10 min,tests/demo/images.sh $(TAG) $(TARGET)/images)

.PHONY: bare
bare: ## Does a bare Debian do? Up to the first build of all crates in a root of its own
	$(call phase,bare,1 s when nothing of it changed and 5 to 12 min else,tests/bare.sh $(if $(filter 1,$(IF_CHANGED)),--if-changed))

.PHONY: book
book: ## The documentation as web pages in target/book (needs mdbook)
	@command -v mdbook >/dev/null || { echo "mdbook is missing: cargo install --locked mdbook" >&2; exit 1; }
	$(call phase,book,1 s,mdbook build docs --dest-dir $(abspath $(TARGET))/book)

# The lab before all else, because it builds Kubernetes; without our own crates, and
# with dependencies as the others compile them (tests/Cargo.toml).
.PHONY: lab
lab: ## Compile the lab's program, target/debug/lab (clusters to try things on: docs/src/how-to/develop.md)
	$(call phase,lab,1 s when nothing changed and 2 min from cold,cargo build --locked --workspace --no-default-features --bin lab)

# What the demo runs: Go and Rust side by side, each with times when it can use one
# core only.
.PHONY: programs
programs: lab ## What the lab and the demo run: Kubernetes, etcd, helm (once), and both images with tag dev
	$(call phase,programs,1 s when cached and 10 to 16 min from cold,tests/demo/beside.sh "$(LAB) build" "PROFILE=dev tests/demo/images.sh dev $(TARGET)/demo/images")

.PHONY: lab-build
lab-build: lab ## Compile and fetch the programs of the lab: Kubernetes, etcd, kine, databases (once)
	$(call phase,lab-build,1 s when cached and 10 to 18 min from cold,$(LAB) build --databases)

.PHONY: clean
clean: ## Stop what runs of the lab, remove what was built here (not the lab's cache in ~/.cache/steward-lab)
	@if [ -x $(LAB) ]; then $(LAB) sweep --all || true; fi
	cargo clean
