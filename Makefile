# The front door. `make` lists what there is. Nothing is assumed but a python3 with venv; Rust is used where it is.
#
#   PYTHON=python3.12 make test         another interpreter (the virtual environment is made anew)
#   SAGE_WS_BUILD=pure make test        without the native core, though a Rust toolchain is there
#   make test PYTEST_ARGS="-k close"    arguments for every pytest of the run

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH ?= bench
BENCH_ARGS ?=
COUNTS_ARGS ?=
FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?=
MINUTES ?= 10
MUTANTS ?= assemble base64 close frame mask pending utf8
MUTANTS_SECONDS ?= 900

BIN := $(VENV)/bin
MODE := $(or $(SAGE_WS_BUILD),auto)
INTERPRETER := $(shell $(PYTHON) -c 'import sys; print(sys.version.split()[0])')
# What the build front would build, by its own word.
BUILD = $(shell PYTHONPATH=build_backend PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -c 'import sage_ws_build; print(sage_ws_build.choose())' 2>/dev/null)
NATIVE = $(filter native,$(BUILD))
# Without make's flags: cargo has its own idea of how many jobs run at once.
RUST_ENV = MAKEFLAGS= PYO3_PYTHON=$(abspath $(BIN))/python
BUILD_INPUTS := pyproject.toml $(wildcard Cargo.toml Cargo.lock) \
	$(shell find build_backend rust -path rust/fuzz -prune -o \( -name '*.py' -o -name '*.rs' -o -name Cargo.toml \) -print 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test test-short rust-lines sanitize free-threaded fuzz mutants audit interop soak reliability reliability-page bench bench-full bench-micro bench-page counts lint docs stub clean

help:
	@echo "make demo        agents talk over a real socket, and a table says how fast"
	@echo "make test        every test on both cores, loops and links, with coverage"
	@echo "make test-short  unit and integration tests on both cores, without coverage"
	@echo "make mutants     which broken lines of the core no test notices, MUTANTS_SECONDS=900 each; MUTANTS=\"frame wire\""
	@echo "make audit       known vulnerabilities of what is depended on, where a database of them can be had"
	@echo "make interop     against programs on other WebSocket libraries"
	@echo "make proxies     through nginx, HAProxy, Apache, Caddy and clients' proxies, where they are installed"
	@echo "make soak        faults of all kinds under load, MINUTES=10 of them, and a ledger that must balance"
	@echo "make reliability docs/reliability.md, from a run that takes a quarter of an hour; -page: from the last one"
	@echo "make rust-lines  lines of the Rust core that its tests reach, where llvm-tools are"
	@echo "make sanitize    tests of the Rust sockets under AddressSanitizer, where a nightly toolchain is"
	@echo "make free-threaded  whether the extension compiles for a Python without a GIL, which need not be there"
	@echo "make fuzz        each fuzz target, FUZZ_SECONDS=600 each; those of the core where a nightly toolchain is"
	@echo "make bench       side by side with websockets, aiohttp, picows, Go, HTTP, gRPC, Rust; make bench-full: calmer"
	@echo "make bench-micro the small steps of a message; make bench-page: docs/performance.md, from the last record"
	@echo "make counts      instructions of each message, beside what was recorded; needs valgrind"
	@echo "make lint        style, types, import rules, the stub"
	@echo "make docs        the documentation, into site/"
	@echo "make stub        the extension's types, written anew"
	@echo "make clean       everything that a build or a test left here"

# ── the virtual environment ────────────────────────────────────────────────────────────
# One stamp for each interpreter, and one for each set of extras and way to build: a change of
# either, or of a source that is compiled, installs again. Python sources are used in place.
$(VENV)/.python-$(INTERPRETER):
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.ready-%.$(MODE): $(VENV)/.python-$(INTERPRETER) $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@find $(VENV) -maxdepth 1 -name '.ready-*' ! -name '*.$(MODE)' -delete
	@touch $@

# ── what a newcomer runs ───────────────────────────────────────────────────────────────
demo: $(VENV)/.ready-demo.$(MODE)
	$(BIN)/sage-ws demo $(DEMO_ARGS)

# ── tests ──────────────────────────────────────────────────────────────────────────────
# Each core runs everything on asyncio's loop, and what awaits a socket on uvloop too; what compares
# the cores runs once. Where there is a direct link (the native core on Linux) everything runs on it, and what
# awaits a socket on uvloop once with it and once without. A process for each, two at a time. Conformance and parity are long, measure memory,
# and reach no line that nothing else does: coverage would cost them minutes for nothing.
ON_UVLOOP := $(wildcard tests/integration tests/faults)
APART := tests/conformance tests/interop tests/parity tests/proxies

test: $(VENV)/.ready-test.$(MODE)
	@$(BIN)/python -m coverage erase
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going suite
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report --fail-under=98

test-short: $(VENV)/.ready-test.$(MODE)
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target --keep-going suite-short

# Against programs on other libraries, in Go, Rust, Node and Python, which are built first where their tools are.
interop: $(VENV)/.ready-test.$(MODE)
	@$(MAKE) --no-print-directory --output-sync=target --keep-going suite-interop

# Through real proxies, which the tests start.
proxies: $(VENV)/.ready-test.$(MODE)
	@$(MAKE) --no-print-directory --output-sync=target --keep-going suite-proxies

# Faults of all kinds in turn, on both cores, half of the time each.
soak: $(VENV)/.ready-test.$(MODE)
	@$(MAKE) --no-print-directory suite-soak

# The page of what is promised, with its figures on every core and link; and the same without measuring.
reliability: $(VENV)/.ready-test.$(MODE)
	$(BIN)/python -m tests.faults.reliability

reliability-page: $(VENV)/.ready-test.$(MODE)
	$(BIN)/python -m tests.faults.page

.PHONY: proxies suite suite-short suite-interop suite-proxies suite-soak suite-parity suite-cargo
ifneq ($(filter suite suite-short suite-interop suite-proxies suite-soak,$(MAKECMDGOALS)),)
# Absent is told from broken by looking, not by importing: with SAGE_WS_CORE=rust a broken one fails every test.
CORES := $(shell SAGE_WS_CORE=pure $(BIN)/python -c 'import importlib.util as u; print(u.find_spec("sage_ws._core._rust") and "rust" or "", "pure")')
ifeq ($(filter rust,$(CORES)),)
$(if $(NATIVE),$(error the native extension was built, and is not there))
$(info no native extension was built: the pure core alone is tested)
endif
# Cores that have a direct link, asked of themselves, so that one without it is never tested as if it had.
DIRECT := $(foreach core,$(CORES),$(shell SAGE_WS_CORE=$(core) $(BIN)/python -c 'import sage_ws._core as c; print(c.name * c.has_poller)'))
LINK = $(if $(filter $*,$(DIRECT)),direct,loop)
suite: $(CORES:%=suite-%-asyncio) $(CORES:%=suite-%-conformance) $(if $(filter rust,$(CORES)),suite-cargo suite-parity) $(CORES:%=suite-%-uvloop) $(DIRECT:%=suite-%-uvloop-direct)
suite-short: $(CORES:%=short-%)
suite-interop: $(if $(wildcard tests/interop),$(CORES:%=interop-%))
suite-proxies: $(CORES:%=proxies-%)
SOAK_SECONDS := $(shell echo $$(($(MINUTES) * 60 / $(words $(CORES)))))
suite-soak:
	@for core in $(CORES); do SAGE_WS_CORE=$$core $(BIN)/python -m tests.faults.soak --seconds $(SOAK_SECONDS) || exit 1; done
endif

suite-cargo:
	$(RUST_ENV) cargo test --workspace --quiet
	cd bench/limit && MAKEFLAGS= cargo test --locked --quiet

rust-lines:
	@.ci/rust_lines

# Its own target directory, and an explicit target: build scripts and macros are not instrumented.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
sanitize:
	@if cargo +nightly --version >/dev/null 2>&1; then \
		CARGO_TARGET_DIR=target/sanitize RUSTFLAGS=-Zsanitizer=address MAKEFLAGS= \
			cargo +nightly test --quiet --package sage-ws-io --lib --target $(HOST); \
	else echo "no nightly toolchain: nothing was run under AddressSanitizer"; fi

# The interpreter is described, not run. A target directory of its own: to cargo it is another configuration.
free-threaded:
	CARGO_TARGET_DIR=target/free-threaded PYO3_CONFIG_FILE=$(abspath rust/python/free-threaded.cfg) MAKEFLAGS= \
		cargo clippy --package sage-ws-python --locked --quiet -- --deny warnings

fuzz: $(VENV)/.ready-test.$(MODE)
	@MAKEFLAGS= VENV=$(VENV) .ci/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

mutants: $(VENV)/.ready-mutants.$(MODE)
	@MAKEFLAGS= VENV=$(VENV) .ci/mutants $(MUTANTS_SECONDS) $(MUTANTS)

audit: $(VENV)/.ready-test.$(MODE)
	@$(BIN)/python .ci/audit.py

suite-parity:
	$(BIN)/python -m pytest -o cache_dir=.pytest_cache/parity tests/parity $(PYTEST_ARGS)

suite-%-asyncio:
	SAGE_WS_CORE=$* SAGE_WS_TEST_LOOP=asyncio SAGE_WS_LINK=$(LINK) $(BIN)/python -m coverage run -m \
		pytest -o cache_dir=.pytest_cache/$*-asyncio $(APART:%=--ignore=%) tests $(PYTEST_ARGS)

suite-%-conformance:
	SAGE_WS_CORE=$* $(BIN)/python -m \
		pytest -o cache_dir=.pytest_cache/$*-conformance tests/conformance $(PYTEST_ARGS)

suite-%-uvloop:
	SAGE_WS_CORE=$* SAGE_WS_TEST_LOOP=uvloop SAGE_WS_LINK=loop $(BIN)/python -m coverage run -m \
		pytest -o cache_dir=.pytest_cache/$*-uvloop $(ON_UVLOOP) $(PYTEST_ARGS)

suite-%-uvloop-direct:
	SAGE_WS_CORE=$* SAGE_WS_TEST_LOOP=uvloop SAGE_WS_LINK=direct $(BIN)/python -m coverage run -m \
		pytest -o cache_dir=.pytest_cache/$*-uvloop-direct $(ON_UVLOOP) $(PYTEST_ARGS)

short-%:
	SAGE_WS_CORE=$* $(BIN)/python -m \
		pytest -o cache_dir=.pytest_cache/$*-short tests/unit tests/integration $(PYTEST_ARGS)

interop-%:
	SAGE_WS_CORE=$* $(BIN)/python -m \
		pytest -o cache_dir=.pytest_cache/$*-interop tests/interop $(PYTEST_ARGS)

proxies-%:
	SAGE_WS_CORE=$* $(BIN)/python -m \
		pytest -o cache_dir=.pytest_cache/$*-proxies tests/proxies $(PYTEST_ARGS)

# ── figures ────────────────────────────────────────────────────────────────────────────
# A part of it: make bench BENCH=bench/test_shapes.py BENCH_ARGS="--peers sage-rust,picows"
bench: $(VENV)/.ready-bench.$(MODE)
	$(BIN)/python -m pytest -c bench/pytest.ini $(BENCH) $(BENCH_ARGS)

bench-full: $(VENV)/.ready-bench.$(MODE)
	$(BIN)/python -m pytest -c bench/pytest.ini $(BENCH) --full $(BENCH_ARGS)

bench-micro: $(VENV)/.ready-bench.$(MODE)
	$(BIN)/python -m pytest -c bench/pytest.ini bench/test_micro.py $(BENCH_ARGS)

# The pages' figures, from the newest record in bench/results: nothing is measured.
bench-page: $(VENV)/.ready-bench.$(MODE)
	$(BIN)/python -m bench.page

counts: $(VENV)/.ready-test.$(MODE)
	$(BIN)/python -m bench.instructions $(COUNTS_ARGS)

# ── checks ─────────────────────────────────────────────────────────────────────────────
lint: $(VENV)/.ready-lint.$(MODE)
	@$(MAKE) --no-print-directory --keep-going check-style check-types check-imports check-stub \
		$(if $(NATIVE),check-extension check-rust)
	$(if $(NATIVE),,@echo "no Rust toolchain: neither the extension nor its sources were checked")

.PHONY: check-style check-types check-imports check-stub check-extension check-rust
check-style:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types:
	$(BIN)/mypy --strict
	$(BIN)/pyright --pythonpath $(BIN)/python

check-imports:
	$(BIN)/lint-imports

# The committed stub is what its generator writes today, and what the compiled extension is.
STUB := python/sage_ws/_core/_rust.pyi
define write-stub
	@$(BIN)/python rust/python/stub.py $(1)
	@$(BIN)/ruff format --quiet $(1)
endef

stub: $(VENV)/.ready-lint.$(MODE)
	$(call write-stub,$(STUB))

check-stub:
	$(call write-stub,$(VENV)/_rust.pyi)
	diff --unified $(STUB) $(VENV)/_rust.pyi

check-extension:
	$(BIN)/stubtest sage_ws._core._rust --mypy-config-file pyproject.toml

check-rust:
	cargo fmt --all --check
	cargo fmt --manifest-path rust/fuzz/Cargo.toml --check
	$(RUST_ENV) cargo clippy --workspace --all-targets --quiet -- --deny warnings
	cd bench/limit && cargo fmt --check && MAKEFLAGS= cargo clippy --locked --all-targets --quiet -- --deny warnings

# ── pages ──────────────────────────────────────────────────────────────────────────────
docs: $(VENV)/.ready-docs.$(MODE)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .venv-* build dist site target bench/limit/target rust/fuzz/target rust/fuzz/corpus htmlcov .coverage .coverage.*
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
	find python build_backend tests \( -name __pycache__ -o -name '_rust*.so' -o -name '_rust*.pyd' \) -prune -exec rm -rf {} +
