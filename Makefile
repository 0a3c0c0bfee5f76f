# make demo     simulate a night, process it, print what was made
# make test     every test
# make system   WSClean and Chromium from Debian (the only target that needs root)
# make lint     ruff, mypy, import-linter
# make bench    every benchmark
# make docs     docs/reference, from the code
# make campaign the tests that take hours
# make clean    the environment and all caches; products and reports stay

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test system system-if-root lint bench docs campaign clean

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# name of the program / name of the Debian package
PROGRAMS := wsclean chromium
# Chromium has no letters without a font
PACKAGES := wsclean chromium fonts-dejavu-core
# two workers with a thread each; a worker that took all cores would be measured against the other
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
ARGS ?=

demo: $(STAMP) system-if-root
	@$(BIN)/dsa110 demo $(ARGS)

test: $(STAMP) system-if-root
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP) system-if-root
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" $(ARGS); done

docs: $(STAMP)
	@$(BIN)/python -m dsa110_contimg.reference docs/reference

campaign: $(STAMP)
	@$(BIN)/python -m pytest -m campaign $(ARGS)

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv where it is present and can reach its index, pip otherwise: each knows indexes that the other does not.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true). Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
		rm -rf $(VENV); \
		if command -v uv >/dev/null && uv venv --quiet --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); then :; \
		else rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || { \
			echo "No virtual environment could be made: on Debian, apt-get install python3-venv" >&2; exit 1; }; fi; fi
	@if command -v uv >/dev/null && uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'; then :; \
	else $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'; fi
	@touch $@

system:
	@missing=""; for program in $(PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then echo "WSClean and Chromium are installed."; exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
		echo "make system needs Debian's apt-get; install by other means:$$missing" >&2; exit 1; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=""; elif command -v sudo >/dev/null; then as_root="sudo"; else \
		echo "make system needs root (it runs apt-get) and there is no sudo; not installed:$$missing" >&2; exit 1; fi; \
	$$as_root apt-get update; \
	$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES)

# demo and test install the programs themselves where they may, and carry on without them where they may not
system-if-root:
	@missing=""; for program in $(PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && $(MAKE) --no-print-directory system; then exit 0; fi; \
	echo "Note: not installed:$$missing. 'make system' (root or sudo) installs them; carrying on without."
