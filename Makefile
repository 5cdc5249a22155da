# The project's commands; `make` alone lists them. Works with GNU make 3.81 and newer.

VENV := .venv
# The interpreter that makes the virtual environment: the first of these that is Python 3.11 or newer. PYTHON=... chooses another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$name"; break; }; done)
BIN := $(VENV)/bin
# Files made when the packages were installed; they are older than the requirements when those have changed.
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PEERS_STAMP := $(VENV)/.installed-peers
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help install demo up down clean test faults soak check format bench

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Ports: PORT=8001 FLOWER_PORT=5555 POSTGRES_PORT=54329 REDIS_PORT=63799 (for example: make demo PORT=8080)."
	@echo "  Servers of your own: DATABASE_URL and REDIS_URL, in the environment or in .env."

install: $(RUN_STAMP) ## Make .venv and install what the product runs on

demo: $(RUN_STAMP) ## Everything up, 100,000 customers scored; until Ctrl-C (ONCE=1: ends by itself)
	@$(BIN)/python -m deploy.local demo

up: $(RUN_STAMP) ## Everything up, in the background
	@$(BIN)/python -m deploy.local up

down: ## Stop what `make up` started; keeps the data
	@if [ -f $(RUN_STAMP) ]; then $(BIN)/python -m deploy.local down; else echo "Nothing is running."; fi

clean: down ## Stop, and remove the data (var/), the virtual environment and caches
	@rm -rf var $(VENV) *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed var/ (all data), $(VENV)/ and the caches."

test: $(DEV_STAMP) ## Run all tests against real servers on free ports; of the faults, the quick ones
	@$(BIN)/python -m pytest -n 3 --no-loadscope-reorder -m "not faults or faults_quick"

faults: $(DEV_STAMP) ## Break everything that can break, with each guard on and off (half an hour)
	@FAULTS_IN_FULL=1 $(BIN)/python -m pytest tests/faults

soak: $(DEV_STAMP) ## A random mix of faults under constant load (MINUTES=30 SEED=...: prints its seed)
	@SOAK_MINUTES=$(or $(MINUTES),30) SOAK_SEED=$(SEED) $(BIN)/python -m pytest tests/faults/test_mix.py

bench: $(RUN_STAMP) $(if $(filter-out 0,$(PEERS)),$(PEERS_STAMP)) ## Measure beside raw scripts, into bench/report.md (QUICK=1: two minutes; PEERS=1: Ray too)
	@$(BIN)/python -m bench $(if $(filter-out 0,$(QUICK)),--quick)

check: $(DEV_STAMP) ## Lint, formatting, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(DEV_STAMP) ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Asked by running pip: an interrupted attempt leaves an interpreter without it, an upgrade of the system one without a base.
$(RUN_STAMP): requirements.txt pyproject.toml
	@if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
		test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; say where it is: make PYTHON=/path/to/python3"; exit 1; }; \
		echo "Making the virtual environment $(VENV)."; \
		"$(PYTHON)" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing requirements.txt."
	@$(PIP) --requirement requirements.txt
	@$(PIP) --no-deps --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.txt $(RUN_STAMP)
	@echo "Installing requirements-dev.txt."
	@$(PIP) --requirement requirements-dev.txt
	@touch $@

$(PEERS_STAMP): bench/requirements-peers.txt $(RUN_STAMP)
	@echo "Installing bench/requirements-peers.txt."
	@$(PIP) --requirement bench/requirements-peers.txt
	@touch $@
