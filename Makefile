# What a person, and CI, can ask for. Everything runs from .venv, which `make setup` leaves.

VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup
export VENV

# Where an argument helps: make test ARGS='-k adapt -x', make bench ARGS='--help'
ARGS ?=
BENCH ?= serving adapting streaming heads

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## the whole job on a small data set: start a server, stream examples in, predict
	$(BIN)/python examples/demo.py $(ARGS)

.PHONY: setup
setup: $(SETUP) ## make .venv; quick when nothing changed

$(SETUP): pyproject.toml constraints.txt scripts/setup.sh
	@bash scripts/setup.sh
	@touch $@

# How many processes run tests: one more than there are cores, since tests wait for servers now and then, four at most;
# 0: one that a debugger can follow.
PROCESSES ?= $(shell echo $$(( $$(nproc) + 1 )))
PARALLEL := -n $(PROCESSES) --maxprocesses 4 --dist worksteal
# The tests start hundreds of processes, each of which would compile our modules anew where nothing may keep them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.PHONY: test
test: setup ## the tests, but for the slow ones; in several processes
	$(PYTEST) $(PARALLEL) -m "not slow" $(ARGS)

.PHONY: test-slow
test-slow: setup ## the slow ones: every architecture from its export to its tuned layers, and 200 kills each
	GRAFT_CALL_TIMEOUT=600 $(PYTEST) $(PARALLEL) -m slow $(ARGS)

.PHONY: test-faults
test-faults: setup ## 200 kills of the server and 200 of the worker in long streams; goes on where it was cut off
	GRAFT_FAULT_KILLS=200 GRAFT_FAULT_EXAMPLES=2000 GRAFT_CALL_TIMEOUT=600 \
		GRAFT_FAULT_KEPT=build/faults.jsonl GRAFT_FAULT_REPORT=benchmarks/results/faults.md \
		$(BIN)/python -m pytest tests/faults -m slow -v -s $(ARGS)

.PHONY: docs
docs: setup ## write docs/reference from the parsers, settings, docstrings and protos
	$(BIN)/python -m scripts.references

.PHONY: docs-check
docs-check: setup ## docs/reference is what `make docs` writes
	$(BIN)/python -m scripts.references --check

.PHONY: check
check: lint types imports proto-lint proto-breaking proto-check docs-check ## every static check

.PHONY: lint
lint: setup ## style and common mistakes (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: setup ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: setup ## strict types (mypy)
	$(BIN)/mypy

.PHONY: imports
imports: setup ## which part may know which (import-linter; the rules are in pyproject.toml)
	$(BIN)/lint-imports

.PHONY: proto
proto: setup ## generate the stubs in client/graft/v1 from protos/
	bash scripts/generate.sh

.PHONY: proto-lint
proto-lint: setup ## the protos' style (buf)
	$(BIN)/buf lint

.PHONY: proto-breaking
proto-breaking: setup ## the contract still serves the clients of the last release (buf)
	bash scripts/proto-breaking.sh

.PHONY: release-protos
release-protos: setup ## keep the contract as that of a release: make release-protos VERSION=0.1.0
	@bash scripts/release-protos.sh $(VERSION)

.PHONY: proto-check
proto-check: proto ## the committed stubs are what the protos generate
	@git diff --exit-code -- client/graft/v1
	@test -z "$$(git status --porcelain -- client/graft/v1)" || \
		{ git status --short -- client/graft/v1; echo "commit what 'make proto' generated" >&2; exit 1; }

.PHONY: bench
bench: setup ## the benchmarks, or one: make bench BENCH=adapting; results go to benchmarks/results
	@for each in $(BENCH); do echo "benchmarks.$$each"; $(BIN)/python -m "benchmarks.$$each" $(ARGS) || exit 1; done

.PHONY: test-node
test-node: setup ## the Node client against a live server
	bash scripts/test-node.sh

.PHONY: test-broker
test-broker: setup ## the example that feeds from NATS, its consumer killed in the middle; needs nats-server
	@PATH=$$PATH:/usr/sbin command -v nats-server >/dev/null || \
		{ echo "test-broker: needs nats-server ('apt-get install nats-server')" >&2; exit 1; }
	$(BIN)/python -m pytest tests/examples/test_broker.py $(ARGS)

.PHONY: test-image
test-image: setup ## the container image's steps, without a container engine
	bash scripts/test-image.sh

.PHONY: image
image: ## the container image for CUDA; for the CPU: make image ARGS='--build-arg VARIANT=cpu'
	docker build --tag graft $(ARGS) .

.PHONY: lock
lock: ## write constraints.txt anew, with the newest versions that pyproject.toml allows
	bash scripts/lock.sh

.PHONY: clean
clean: ## remove what the other targets leave, .venv too
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	rm -rf examples/clients/node/dist examples/clients/node/node_modules examples/clients/node/src/gen
