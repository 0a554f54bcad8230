# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
DEVCLUSTER := python3 -m devcluster
PYTEST_ARGS ?=
CHAOS_ARGS ?= --runs 20
# Which cluster: native (the default), kind where Docker is there, existing, control-plane.
PROVIDER ?=
ifneq ($(PROVIDER),)
export DEVCLUSTER_PROVIDER := $(PROVIDER)
endif

.PHONY: help demo test e2e chaos check cluster images console clean bootstrap lint types unit chart-lint generated format locks docs

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: bootstrap ## the main job, watched: cluster, images, chart, a speaking avatar, collection (first time 10 to 17 min)
	@$(PYTHON) -m demo

test: bootstrap ## the whole test suite, on real clusters of its own (half an hour; the first time as long as demo before that)
	@scripts/test $(PYTEST_ARGS)

e2e: bootstrap ## the end-to-end tests alone, on a cluster of their own (PROVIDER=kind: on kind)
	@$(PYTHON) -m pytest tests/e2e $(PYTEST_ARGS)

chaos: bootstrap ## seeded runs of users and faults against invariants (CHAOS_ARGS="--runs 500 --parallel 3"; -h)
	@PYTHONPATH=operator $(PYTHON) -m chaos $(CHAOS_ARGS)

bench: bootstrap ## every figure that is claimed, beside what it is compared to (about an hour, on an idle machine)
	@PYTHONPATH=operator $(PYTHON) -m bench --out docs/figures.json

bench-quick: bootstrap ## the same with small sizes (ten minutes); fails where a ratio is clearly worse than the kept one
	@PYTHONPATH=operator $(PYTHON) -m bench --quick --check docs/figures.json

check: bootstrap lint types unit ## the fast inner loop: lint, types, unit tests (under a minute)

cluster: ## a real one-node Kubernetes on this machine (python3 -m devcluster --help)
	@$(DEVCLUSTER) up

images: ## build the three images and load them into the cluster
	@tars=$$(images/build) && $(DEVCLUSTER) load-image $$tars

console: ## build the web console into the API's package
	@scripts/console

clean: ## end the clusters and everything they left; caches outside the tree stay
	@for name in avatar test test1 e2e chaos; do $(DEVCLUSTER) --name $$name down; done
	@rm -rf out .mypy_cache .ruff_cache .pytest_cache .hypothesis

bootstrap: ## .venv from the lock file
	@scripts/bootstrap

lint: bootstrap ## ruff: lint and format
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --check --quiet .

types: bootstrap ## mypy, strict
	@$(PYTHON) -m mypy operator runtime devcluster demo chaos bench docsite

unit: bootstrap ## unit tests
	@$(PYTHON) -m pytest -q tests/unit

chart-lint: bootstrap ## helm lint, and what is made from the chart and the code against them
	@PATH="$$($(DEVCLUSTER) binaries):$$PATH" scripts/chart-lint

generated: bootstrap ## make README and schema of the chart, metrics reference, dashboard and manifests anew
	@PATH="$$($(DEVCLUSTER) binaries):$$PATH" scripts/chart-lint --write

docs: bootstrap ## the documentation site, in out/site
	@scripts/docs

format: bootstrap ## rewrite the code in the project's format
	@$(PYTHON) -m ruff check --fix --quiet .
	@$(PYTHON) -m ruff format --quiet .

locks: bootstrap ## write the lock files anew from pyproject.toml
	@locks/compile
