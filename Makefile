# guardtrain: every task of the project. `make help` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Overrides for the commands, such as: make curve ARGS="head=mlp grid.seeds=10"
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help docs install curve test pytest engines fuzz lint api house notebooks bench wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## make the virtual environment and install guardtrain with its development tools

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "guardtrain needs Python 3.11 or newer; give one with: make PYTHON=python3.11 ..."; exit 1; }
	@echo "installing into $(VENV) (torch is large: a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

curve: install  ## the main job: the data-efficiency curve on the embedded scenes
	@$(BIN)/guardtrain curve $(ARGS)

test: install  ## lint and all tests, at the same time
	@$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: install
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# The servers are no part of guardtrain's environment: what they need of pandas and the like is not what it needs. Ray's
# launcher is taken without its requirements: they hold back cloudpickle for the sake of AWS, and joblib wants it newer.
$(VENV)/.servers: install
	@test -x $(VENV)/servers/bin/python || $(BIN)/python -m venv $(VENV)/servers
	@$(VENV)/servers/bin/python -m pip install --quiet --disable-pip-version-check 'mlflow>=2.16' 'moto[s3]>=5' flask flask-cors
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'hydra-ray-launcher>=1.2.2'
	@touch $@

engines: $(VENV)/.servers  ## a sweep, an extraction and an export through SLURM, Ray, MLflow and S3, started here
	@$(BIN)/python -m pytest -m engines -rs $(ARGS) tests/engines

fuzz: install  ## property tests with random examples
	@HYPOTHESIS_PROFILE=explore $(BIN)/python -m pytest -n 2 --dist loadfile -m hypothesis $(ARGS)

lint: install  ## ruff, mypy, who may import whom, and what nobody uses
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/vulture

docs: install  ## the pages as a site, with a reference of commands and API, in outputs/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file docs/mkdocs.yml

api: install  ## what breaks for users of the last tag
	@tag=$$(git describe --tags --abbrev=0 2>/dev/null) || { echo "there is no tag yet to compare with"; exit 0; }; \
	  $(BIN)/griffe check guardtrain --against "$$tag"

house: install  ## facts about the build: files, names that cross rooms, circles, how long starting takes
	@$(BIN)/python -m tests.house

notebooks: install  ## run the notebooks from top to bottom and keep their outputs (ARGS=02 for one)
	@$(BIN)/python notebooks/execute.py $(ARGS)

bench: install  ## performance, side by side in one run
	@$(BIN)/python -m tests.bench $(ARGS)

wheel: install  ## build the wheel into dist/
	@$(BIN)/python -m build --wheel --outdir dist .

clean:  ## remove build products and outputs, not the environment
	rm -rf dist build outputs .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
