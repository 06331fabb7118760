# Two commands: `make demo` and `make test`. Both make .venv first, from the committed lock.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
RUN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint

demo: $(VENV)/.installed
	$(RUN)/mixbit run experiments/digits.yaml

# In the folders' order: the long files of tests/flows first, not last because they hold few tests.
test: $(VENV)/.installed
	$(RUN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

# torch stands apart: its builds differ by machine, so it is pinned without a hash.
$(VENV)/.installed: requirements.lock requirements-torch.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN)/python -m pip install --quiet -r requirements-torch.lock
	$(RUN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@
