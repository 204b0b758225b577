# Set-up and checks. `make demo` and `make test` do everything on a fresh machine that has Python 3.10 or later
# (on Debian: apt install make python3-venv).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: compare demo test test-slow clean

demo: $(VENV)/.installed
	$(BIN)/python benchmarks/demo.py

# The data sets lie, or are linked, in ./datasets: see the spec.
compare: $(VENV)/.installed
	$(BIN)/anomalib-lamp compare configs/compare/baselines.yaml
	$(BIN)/anomalib-lamp report results/compare/baselines

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-test
	$(BIN)/pytest -m slow

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml runtime/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[test]" --editable ./runtime
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV)
