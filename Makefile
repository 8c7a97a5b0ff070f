# Every target works on a fresh Debian machine that has python3 and make; the first one that needs
# the environment sets it up.

# The Python (3.10 or newer) that .venv is made with.
PYTHON ?= python3
# Arguments for pytest, for instance TESTS=tests/unit/core or TESTS='-k wheel'.
TESTS ?=
# Processes that run tests; what TESTS names is run by one, unless WORKERS is set.
WORKERS ?= $(if $(TESTS),0,4)
# Names of mutations, or their beginnings; all without any.
MUTATIONS ?=
# Arguments for the benchmark.
BENCH ?=
# Another checkout with its .venv, to compare the server with.
COMPARE ?=
# The torture: what it draws everything from, how long it takes, and further arguments.
SEED ?= 1
MINUTES ?= 10
TORTURE ?=
# Further arguments for the stomp, for instance STOMP='--languages python,go'.
STOMP ?=
# Arguments for the sweep, for instance SWEEP='--sample 1000 --only 0'.
SWEEP ?=
# Further arguments for the rounds, for instance ROUNDS='--rounds 1000 --wire-rounds 0'.
ROUNDS ?=
# Further arguments for the floods.
FLOODS ?=
# Set to --upgrade to move every pinned version to its newest.
UPGRADE ?=

BIN := .venv/bin
READY := .venv/.ready
PACKAGES := service clients/python benchmarks examples tests scripts
# Hundreds of processes start in the tests: none compiles again what another one has compiled, also
# where the environment says that Python writes no bytecode.
BYTECODE := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/.cache/bytecode
PYTEST = $(BYTECODE) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
LANGUAGES := python rust typescript
CHECKED := tests/unit tests/property tests/architecture tests/conformance

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run check test test-languages $(LANGUAGES:%=test-%) mutations plants torture floods simulate rounds stomp sweep lint gen docs \
	bench compare constraints clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make .venv with kvblock and all tools in it (quick when nothing changed)

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON='$(PYTHON)' scripts/setup.sh
	@touch $@

run: $(READY) ## Replay the bundled trace: three engines on a shared pool, then on a third each
	@$(BIN)/kvblock replay --engines 3 --mode both

check: $(READY) ## Run the tests that take a minute, with a quarter of the random examples
	@TEST_DRIVERS=protoc TEST_EXAMPLES=0.25 $(PYTEST) $(CHECKED)

test: $(READY) ## Run all tests but those of the clients (test-languages); TESTS=tests/unit/core runs some
	@scripts/install_promtool.sh
	@scripts/install_redis.sh
	@code=0; $(PYTEST) $(TESTS) || code=$$?; \
		$(if $(TESTS),,scripts/test_language.sh left-out $(LANGUAGES);) exit $$code

test-languages: $(LANGUAGES:%=test-%) ## Test the clients in all languages; make test-go tests that in Go

$(LANGUAGES:%=test-%): test-%: $(READY)
	@WORKERS=$(WORKERS) scripts/test_language.sh $*

mutations: $(READY) ## Plant small bugs, each of which a test has to catch; MUTATIONS='core rpc/page' some
	@$(BIN)/python -m tests.mutations $(MUTATIONS)

plants: $(READY) ## Let torture and simulation find each of the bugs that they can plant
	@scripts/install_faketime.sh
	@$(BIN)/python -m pytest -m plants tests/torture

torture: $(READY) ## Kill, stop, cut and fill for MINUTES=10 by SEED=1; TORTURE='--plant ...' adds a bug
	@scripts/install_faketime.sh
	@$(BIN)/python -m tests.torture --seed $(SEED) --minutes $(MINUTES) $(TORTURE)

floods: $(READY) ## Flood a server without credentials; FLOODS='--only pings --seconds 5' takes a part
	@$(BIN)/python -m tests.torture.floods --seed $(SEED) $(FLOODS)

simulate: $(READY) ## Simulate 100,000 schedules of crashes by SEED=1
	@$(BIN)/python -m tests.torture.simulate --schedules 100000 --seed $(SEED)

rounds: $(READY) ## Play 100,000 rounds and as many trims against the naive model by SEED=1
	@$(BIN)/python -m tests.torture.rounds --seed $(SEED) $(ROUNDS)

stomp: $(READY) ## Kill sample engines in six languages on one pool for MINUTES by SEED=1
	@$(BIN)/python -m tests.torture.languages --seed $(SEED) --minutes $(MINUTES) $(STOMP)

sweep: $(READY) ## Damage a state directory in every way: all bits, lengths, names and kinds of files
	@$(BIN)/python -m tests.torture.sweep --seed $(SEED) $(SWEEP)

lint: $(READY) ## Check style, types, layers and the proto contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports --no-logo
	$(BIN)/buf lint protos
	scripts/check_breaking.sh

gen: $(READY) ## Generate what is generated: stubs, the synchronous client, reference pages
	@scripts/gen_stubs.sh clients/python
	@$(BIN)/python scripts/gen_sync.py
	@$(BIN)/python scripts/settings_table.py
	@$(BIN)/python scripts/gen_api_docs.py
	@$(BIN)/python scripts/gen_cli_docs.py

docs: $(READY) ## Build the pages into build/site; fails on a dead link
	@scripts/install_site_tools.sh
	@$(BIN)/python scripts/build_site.py

bench: $(READY) ## Run the benchmarks; writes build/bench.json
	@scripts/install_redis.sh
	@mkdir -p build
	@$(BIN)/python -m benchmarks --output build/bench.json $(BENCH)

compare: $(READY) ## Compare the server with that of another checkout, COMPARE=DIR
	@$(BIN)/python -m benchmarks.two_checkouts $(COMPARE)

constraints: $(READY) ## Pin all versions anew in constraints.txt (UPGRADE=--upgrade: the newest)
	@scripts/pin_versions.sh $(UPGRADE)

clean: ## Remove .venv and everything that was built
	rm -rf .venv build dist .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find service clients benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
