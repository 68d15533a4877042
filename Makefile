# Two commands on a fresh machine: `make demo` and `make test`. Needs Python >= 3.11 and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format clean

demo: .venv/installed ## Run the study at laptop scale on the embedded data and name the report.
	$(BIN)/unperturbed run distribution-and-task

test: .venv/installed ## Run the tests.
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal -q

check: .venv/installed ## Formatting, lint, types, import contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv runs

# One step installs everything that is named and nothing else, so that no package can fetch another build of PyTorch.
.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed, found " + sys.version.split()[0] + "; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
