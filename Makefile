# make demo and make test are all that a fresh clone needs; both make .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv demo test check format tables clean
.DELETE_ON_ERROR:

venv: $(VENV)/.installed

# constraints.txt pins what was tested; pyproject.toml has the ranges.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	  f"imgrec needs Python 3.11 or later; this is {v[0]}.{v[1]}. Try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

# LeNet-5 on scikit-learn's digits: trains, evaluates and fills runs/digits_lenet.
demo: venv
	$(BIN)/python -m imgrec.main --config=configs/digits_lenet.py

# Files side by side, as many as there are cores, up to four (each takes about 3 GB). One test alone:
# .venv/bin/python -m pytest tests/test_main.py -k NAME
test: venv
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

# Format, lint and types; `make check test` is all that a change has to pass.
check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

# README's tables from results/*.json.
tables: venv
	$(BIN)/python scripts/tables.py
