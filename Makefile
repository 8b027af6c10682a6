# tidewheel: what a person types. `make help` lists it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export TIDEWHEEL_HOME ?= $(CURDIR)/.tidewheel
RECIPE ?= recipes/quickstart.yaml
WORKERS ?= 2
REGISTRY ?= registry.local
BUILDER ?= docker

.DEFAULT_GOAL := help
.PHONY: help install run test check golden test-cluster images lock clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## the environment alone (.venv)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not there; name one with PYTHON=" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$$(sed -n 's/^uv==//p' constraints.txt)"
	@echo "installing the environment into $(VENV) (a few GB, a few minutes the first time)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

run: $(STAMP)  ## three turns on the built-in world; or RECIPE=… DATA=… [WINDOW_END=…] for a turn on a real log
ifdef DATA
	@$(BIN)/tidewheel run --recipe $(RECIPE) --data $(DATA) $(if $(WINDOW_END),--window-end $(WINDOW_END))
else
	@$(BIN)/tidewheel simulate --recipe $(RECIPE) --turns 3 --home $(TIDEWHEEL_HOME)/simulation
endif

test: $(STAMP)  ## the whole default test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not cluster"

check: $(STAMP)  ## format, lint, types, import law
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

golden: $(STAMP)  ## refresh compiled pipelines, schemas, component READMEs and charts
	@$(BIN)/python -m pytest tests/pipelines tests/components tests/unit/contracts tests/unit/cli/test_sampling.py tests/helm tests/manifests -q --golden -m "not cluster"

test-cluster: $(STAMP)  ## tests marked cluster, against KUBECONFIG
	@$(BIN)/python -m pytest -m cluster; code=$$?; test $$code -ne 5 || { echo "no test is marked cluster yet"; exit 0; }; exit $$code

images:  ## build and push the images: REGISTRY=… [IMAGES="python-serving …"] [BUILDER=docker|podman|buildah|command] [BASE=…]
	@$(PYTHON) images/build.py --registry $(REGISTRY) --builder "$(BUILDER)" $(if $(BASE),--base $(BASE)) $(IMAGES)

lock: $(STAMP)  ## resolve constraints.txt again
	@$(BIN)/uv pip compile --quiet --python-version 3.11 --extra dev --no-header --no-annotate --no-emit-package tidewheel pyproject.toml -o constraints.txt

clean:  ## the environment and the simulation go; nothing else
	@rm -rf $(VENV) .tidewheel/simulation
