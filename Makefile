# mt5-swarm. `make` alone prints what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
ACCOUNTS ?= 3
DATA ?= .local
BASE ?= python:3.13-slim-trixie
STACK ?= mt5
DEPLOY = $(BIN)/python -m swarm_stack
# On simulated terminals: SIM=1 make deploy.
SIMULATED = $(if $(filter 1,$(SIM)),--sim)
NAMED = $(if $(DOMAIN),--domain $(DOMAIN))

# A stamp for each lock, so that pip runs only when a lock has changed.
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
CLIENT := supabase/client
CLIENT_STAMP := $(CLIENT)/node_modules/.installed
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: help
help: ## Print this help
	@echo "mt5-swarm: a MetaTrader 5 cloud that you host yourself"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Options: PORT=$(PORT) ACCOUNTS=$(ACCOUNTS) DATA=$(DATA) PYTHON=$(PYTHON)"

.PHONY: run
run: $(RUN_STAMP) ## Run everything on this machine: PORT=8080 ACCOUNTS=3
	@exec $(BIN)/python -m local_stack run --port $(PORT) --accounts $(ACCOUNTS) --data-dir $(DATA)

.PHONY: stop
stop: $(RUN_STAMP) ## Stop what `make run` started; the data stays
	@$(BIN)/python -m local_stack stop --data-dir $(DATA)

.PHONY: rotate-keys
rotate-keys: $(RUN_STAMP) ## Put stored passwords under a new key, while services run
	@$(BIN)/python -m ops rotate-keys --data-dir $(DATA) $(ARGS)

.PHONY: clean
clean: ## Stop, and forget the data of `make run`
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local_stack stop --data-dir $(DATA); fi
	@rm -rf $(DATA)

.PHONY: secrets
secrets: $(RUN_STAMP) ## Make the swarm's secrets, and an encrypted copy of them: FROM=dir RENEW=name
	@$(DEPLOY) secrets --stack $(STACK) $(if $(FROM),--from $(FROM)) $(if $(RENEW),--renew $(RENEW)) $(ARGS)

.PHONY: open-copy
open-copy: $(RUN_STAMP) ## Print a secret of an encrypted copy: FILE=... NAME=key_ring
	@$(DEPLOY) open-copy $(FILE) $(NAME)

.PHONY: rewrap-keys
rewrap-keys: $(RUN_STAMP) ## Put the Swarm's stored passwords under the active key of its key ring
	@$(DEPLOY) rewrap-keys --stack $(STACK) $(SIMULATED) $(NAMED) $(ARGS)

.PHONY: certs
certs: $(RUN_STAMP) ## Give nginx a certificate: CERT=fullchain.pem KEY=privkey.pem, or one made here
	@$(DEPLOY) certs --stack $(STACK) $(SIMULATED) $(NAMED) $(if $(CERT),--chain $(CERT)) $(if $(KEY),--key $(KEY)) $(ARGS)

.PHONY: deploy
deploy: $(RUN_STAMP) ## Deploy on this Swarm, the first time or again: DOMAIN=... (SIM=1: simulated)
	@$(DEPLOY) deploy --stack $(STACK) $(SIMULATED) $(NAMED) $(if $(WITHOUT),--without $(WITHOUT)) $(ARGS)

.PHONY: status
status: $(RUN_STAMP) ## What runs on the Swarm, and what is wrong
	@$(DEPLOY) status --stack $(STACK)

.PHONY: scale
scale: $(RUN_STAMP) ## Scale a pool with its terminals: SERVICE=api-pool N=5
	@$(DEPLOY) scale --stack $(STACK) $(SERVICE) $(N)

.PHONY: logs
logs: $(RUN_STAMP) ## Logs of the Swarm's services: SERVICE=api-pool ARGS=--follow
	@$(DEPLOY) logs --stack $(STACK) $(SERVICE) $(ARGS)

.PHONY: backups
backups: $(RUN_STAMP) ## To which times the Swarm's database can be restored
	@$(DEPLOY) backups --stack $(STACK) $(SIMULATED) $(NAMED)

.PHONY: fetch-backups
fetch-backups: $(RUN_STAMP) ## Copy backups back from their second place, onto a new data node
	@$(DEPLOY) backups --fetch --stack $(STACK) $(SIMULATED) $(NAMED)

.PHONY: restore
restore: $(RUN_STAMP) ## Bring the Swarm's database back: TO=2026-11-29T22:15:00Z
	@$(DEPLOY) restore --stack $(STACK) $(SIMULATED) $(NAMED) $(TO)

.PHONY: sizes
sizes: $(RUN_STAMP) ## Write docs/sizes.md: what the Swarm stack reserves
	@$(DEPLOY) sizes

.PHONY: undeploy
undeploy: $(RUN_STAMP) ## Remove the stack; data and secrets stay (ARGS="--data --secrets": not)
	@$(DEPLOY) undeploy --stack $(STACK) $(ARGS)

.PHONY: test
test: lint unit ## Lint, types, doors and the fast tests (under five minutes)

.PHONY: unit
unit: $(DEV_STAMP) ## The fast tests alone
	@$(BIN)/pytest -n 2 --dist loadfile -m "not long"

.PHONY: test-long
test-long: $(DEV_STAMP) test-client ## The slow tests: storms, RPyC versions, a real browser (needs chromium)
	@$(BIN)/pytest -n 2 --dist loadfile -m long
	@$(BIN)/pytest tests/long

.PHONY: test-swarm
test-swarm: $(DEV_STAMP) ## The stack on a real Swarm of its own (root; needs docker.io and debootstrap)
	@MT5_SWARM_RECORD=$(RECORD) $(BIN)/python -m tests.swarm

.PHONY: test-client
test-client: $(CLIENT_STAMP) ## The TypeScript client: types and tests (needs Node 20 and npm)
	@npm --prefix $(CLIENT) test --silent

.PHONY: lint
lint: $(DEV_STAMP) ## Ruff, mypy and the doors between rooms
	@$(BIN)/ruff check services tests
	@$(BIN)/ruff format --check --quiet services tests
	@$(BIN)/mypy
	@$(BIN)/mypy tests
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(DEV_STAMP) ## Format the code and mend what ruff can
	@$(BIN)/ruff check --fix --quiet services tests || true
	@$(BIN)/ruff format services tests

.PHONY: bench
bench: $(DEV_STAMP) ## Measure; prints tables and rewrites docs/benchmarks.md
	@$(BIN)/python -m tests.load

.PHONY: screenshot
screenshot: $(DEV_STAMP) ## Take docs/console.png anew (needs chromium)
	@MT5_SCREENSHOT_DIR=docs $(BIN)/pytest -q tests/long/test_console_browser.py

.PHONY: image
image: ## Build the image mt5-terminal-sim: BASE=python:3.13-slim (needs Docker)
	@docker build --build-arg BASE=$(BASE) -f services/terminal_sim/Dockerfile -t mt5-terminal-sim .

.PHONY: conformance
conformance: $(DEV_STAMP) ## Run the conformance matrix and write docs/conformance.md
	@$(BIN)/pytest -q -n 2 --dist loadfile tests/contract --conformance-report docs/conformance.md

.PHONY: faults
faults: $(DEV_STAMP) ## Break the simulator in every way and write docs/fault-run.md
	@MT5_FAULT_RECORD=docs/fault-run.md $(BIN)/pytest -q tests/unit/terminal_sim/test_sim_every_fault.py

.PHONY: read-faults
read-faults: $(DEV_STAMP) ## Read under every terminal fault and write docs/read-faults.md
	@$(BIN)/python -m tests.load.read_faults

.PHONY: lock
lock: $(DEV_STAMP) ## Resolve the dependencies anew into the lock files
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --upgrade \
		--generate-hashes --no-emit-index-url --python-version 3.11 \
		--extra local pyproject.toml --output-file requirements.lock
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --upgrade \
		--generate-hashes --no-emit-index-url --python-version 3.11 --constraint requirements.lock \
		--extra dev pyproject.toml --output-file requirements-dev.lock
	@for kind in pools console ops; do \
		UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal \
			--generate-hashes --no-emit-index-url --python-version 3.11 --constraint requirements.lock \
			$$([ $$kind = pools ] || echo "--extra $$kind") pyproject.toml \
			--output-file services/requirements-$$kind.lock || exit 1; \
	done
	@UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal \
		--generate-hashes --no-emit-index-url --python-version 3.11 --constraint requirements.lock \
		services/terminal_sim/docker/requirements.in \
		--output-file services/terminal_sim/docker/requirements.lock

.PHONY: install
install: $(RUN_STAMP) ## Make the virtual environment that `make run` uses

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mt5-swarm needs Python 3.11 or newer; say which with PYTHON=..."; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(RUN_STAMP): requirements.lock pyproject.toml | $(BIN)/pip
	@echo "Installing the locked packages (about half a minute the first time) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(RUN_STAMP)
	@echo "Installing the locked packages for development ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(CLIENT_STAMP): $(CLIENT)/package-lock.json
	@command -v npm >/dev/null || { echo "This needs Node 20 or newer, with npm."; exit 1; }
	@npm --prefix $(CLIENT) ci --silent
	@touch $@
