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
# Nothing but what the locks name, file by file, and no package's own set-up code: an index that serves something else is noticed.
LOCKED := --require-hashes --only-binary :all: --requirement
# For every platform and Python at once. What a lock holds already stays as it is, unless the requirements want it otherwise.
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(if $(filter-out 0,$(UPGRADE)),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help install demo up down clean test faults soak fuzz check audit lock format bench

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  Ports: PORT=8001 FLOWER_PORT=5555 POSTGRES_PORT=54329 REDIS_PORT=63799 (for example: make demo PORT=8080)."
	@echo "  PROMETHEUS_PORT=9090 starts a Prometheus with our rules beside it, where the program is on the PATH."
	@echo "  Servers of your own: DATABASE_URL and REDIS_URL, in the environment or in .env."

install: $(RUN_STAMP) ## Make .venv and install what the product runs on

demo: $(RUN_STAMP) ## Everything up, 100,000 customers scored; until Ctrl-C (ONCE=1: ends by itself)
	@$(BIN)/python -m deploy.local demo

up: $(RUN_STAMP) ## Everything up, in the background
	@$(BIN)/python -m deploy.local up

down: ## Stop what `make up` started; keeps the data
	@if [ -f $(RUN_STAMP) ]; then $(BIN)/python -m deploy.local down; else echo "Nothing is running."; fi

clean: down ## Stop, and remove the data (var/), the virtual environment and caches
	@rm -rf var $(VENV) *.egg-info build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "Removed var/ (all data), $(VENV)/ and the caches."

test: $(DEV_STAMP) ## Run all tests against real servers on free ports; of the faults, the quick ones
	@$(BIN)/python -m pytest -n 3 --no-loadscope-reorder -m "not faults or faults_quick"

faults: $(DEV_STAMP) ## Break everything that can break, with each guard on and off (half an hour)
	@FAULTS_IN_FULL=1 $(BIN)/python -m pytest tests/faults

soak: $(DEV_STAMP) ## A random mix of faults under constant load (MINUTES=30 SEED=...: prints its seed)
	@SOAK_MINUTES=$(or $(MINUTES),30) SOAK_SEED=$(SEED) $(BIN)/python -m pytest tests/faults/test_mix.py

fuzz: $(DEV_STAMP) ## Hostile input for MINUTES=10 a part: the API by its description, files by their readers (SEED=... repeats it)
	@FUZZ_MINUTES=$(or $(MINUTES),10) FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -m fuzz --capture=no

bench: $(RUN_STAMP) $(if $(filter-out 0,$(PEERS)),$(PEERS_STAMP)) ## Measure beside raw scripts, into bench/report.md (QUICK=1: two minutes; PEERS=1: Ray too)
	@$(BIN)/python -m bench $(if $(filter-out 0,$(QUICK)),--quick)

check: $(DEV_STAMP) ## Lint, formatting, types, import contracts, locks, licences
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m supply locks
	@$(BIN)/python -m supply licences

audit: $(DEV_STAMP) ## Look for known vulnerabilities in all that is locked (COPY=all.zip: in a copy of OSV's database)
	@$(BIN)/python -m supply audit $(if $(COPY),--copy $(COPY)) $(if $(filter-out 0,$(OFFLINE)),--unknown-is-fine)

lock: $(DEV_STAMP) ## Write the locks anew after a change of the requirements (UPGRADE=1: all to their newest versions)
	@$(LOCK) --output-file requirements.lock requirements.txt
	@$(LOCK) --output-file requirements-dev.lock --constraint requirements.lock requirements-dev.txt
	@for image in api worker; do \
		$(LOCK) --output-file deploy/images/$$image.lock --constraint requirements.lock deploy/images/$$image.txt || exit $$?; \
	done

format: $(DEV_STAMP) ## Let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Asked by running pip: an interrupted attempt leaves an interpreter without it, an upgrade of the system one without a base.
$(RUN_STAMP): requirements.lock pyproject.toml
	@if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
		test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; say where it is: make PYTHON=/path/to/python3"; exit 1; }; \
		echo "Making the virtual environment $(VENV)."; \
		"$(PYTHON)" -m venv --clear $(VENV) || exit 1; \
	fi
	@echo "Installing requirements.lock."
	@$(PIP) $(LOCKED) requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(RUN_STAMP)
	@echo "Installing requirements-dev.lock."
	@$(PIP) $(LOCKED) requirements-dev.lock
	@touch $@

$(PEERS_STAMP): bench/requirements-peers.txt $(RUN_STAMP)
	@echo "Installing bench/requirements-peers.txt."
	@$(PIP) --requirement bench/requirements-peers.txt
	@touch $@
