# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo browser test test-fast test-slow test-lowest check docs fmt clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: .venv/.done ## make .venv with everything in it

.venv/.done: pyproject.toml
	$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info < (3, 14); sys.exit(None if ok else f"error: Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}\nhint: make setup PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: setup ## edit two photographs on the embedded model, CPU only; leaves demo/sheet.png
	$(BIN)/python scripts/demo.py dataset
	$(BIN)/diffgen run configs/quickstart.yaml
	$(BIN)/python scripts/demo.py sheet

browser: ## Chromium for the report's tests, where apt-get can install it; elsewhere they are skipped
	@{ command -v chromium || command -v google-chrome; } >/dev/null && command -v chromedriver >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium chromium-driver; } || \
	  echo "no Chromium here: tests/output/browser needs the commands chromium and chromedriver" >&2

test: setup browser ## the tests that need no GPU, without the slow ones: five minutes on two cores
	$(BIN)/python -m pytest -m "not gpu and not slow"

test-slow: setup browser ## the slow ones: kill campaigns, trainings, matrices, many more examples of every property
	$(BIN)/python -m pytest -m "(slow or property) and not gpu" --hypothesis-profile=campaign

test-fast: setup ## the tests that need no torch: a minute
	$(BIN)/python -m pytest -m "unit or property or cli"

LOWEST := .venv-lowest/bin/python
test-lowest: ## the tests without torch, and a few with it, on the lowest versions that pyproject.toml allows
	test -x $(LOWEST) || $(PYTHON) -m venv .venv-lowest
	$(LOWEST) -m pip install --quiet uv
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --resolution lowest-direct -r pyproject.toml --extra lora
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) 'pytest>=8' 'pytest-timeout>=2.3' 'hypothesis>=6.100' 'setuptools>=77'
	$(LOWEST) -m uv pip install --quiet --python $(LOWEST) --no-deps -e .
	$(LOWEST) -m pytest -m "unit or property or cli" --ignore tests/commands/test_help.py \
	  --ignore tests/scripts/test_licences.py # the texts of the newest typer, what the newest packages state
	$(LOWEST) -m pytest -m "not slow and not gpu" tests/e2e/test_quickstart.py tests/editing/test_img2img.py \
	  tests/editing/test_loading.py tests/checks/test_ultralytics.py

check: setup ## lint, format, types, imports, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.docs.check

docs: setup ## write again what in docs/ comes from the code, and build the site: site/index.html
	$(BIN)/python -m scripts.docs.check --write
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # not --quiet: it then counts no warnings, and fails at none

fmt: setup ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the demo and the tests made
	rm -rf demo site .pytest_cache .mypy_cache .ruff_cache .hypothesis
