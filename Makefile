# `make demo` and `make test` are all that a newcomer needs; each makes its own environment first.

PYTHON ?=
SEED ?= 0
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The pins are the whole list, so pip resolves nothing: see the head of constraints.txt.
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.DELETE_ON_ERROR:
.PHONY: help install demo test lint format clean

help:
	@echo 'make demo      generate data, train DeFlow, evaluate it and show the result (SEED=0)'
	@echo 'make test      lint, format check, type check and tests (PYTEST_ARGS="tests/core -k clock")'
	@echo 'make lint      the first three of these'
	@echo 'make format    put the code in order'
	@echo 'make install   only the environment, $(VENV) (PYTHON=/path/to/python3 chooses the interpreter)'
	@echo 'make clean     remove the environment, caches and build outputs'

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/deflow demo --seed $(SEED)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(STAMP)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp holds the folder that the environment was made in. A clone that was moved or copied, or
# whose interpreter is gone, gets a new one: the old would run another folder's code, or nothing.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(STAMP) 2>/dev/null),$(CURDIR))
.PHONY: $(STAMP)
endif

# Python 3.13 comes last because dm_control is whole only before it (see constraints.txt).
# An interpreter counts only when it runs: a name on the path may be a shim with nothing behind it.
$(STAMP): pyproject.toml constraints.txt src/deflow/_version.py
	@found=; \
	for python in $(or $(PYTHON),python3.12 python3.11 python3.13 python3); do \
	    if "$$python" -c '$(SUITABLE)' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "No suitable Python was found (tried: $(or $(PYTHON),python3.12 python3.11 python3.13 python3)):" \
	        "DeFlow needs Python 3.11, 3.12 or 3.13 with its venv module" \
	        "(on Debian and Ubuntu: apt install python3-venv);" \
	        "name another one with make PYTHON=/path/to/python3." >&2; \
	    exit 1; \
	fi; \
	echo "Installing DeFlow into $(VENV) with $$("$$found" --version): 1.5 GB, a minute or more."; \
	"$$found" -m venv --clear $(VENV)
	@$(PIP) --requirement constraints.txt
	@$(PIP) --no-build-isolation --editable .
	@echo '$(CURDIR)' > $@
