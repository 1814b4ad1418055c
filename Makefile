# make demo        install, then the whole pipeline on phantoms, ending with a report
# make test        install, then checks and tests (about six minutes on two cores)
# make test-all    also the slow tests; ends with the names of absent programs that tests would have asked
# make fuzz        a minute of damaged files (NIfTI, DICOM, XML), others each time (FUZZ_SECONDS=600 for longer, FUZZ_FIRST=1 for the same)
# make benchmark   speed and memory; run it on a quiet machine
# make clean       remove what these made, the environment included
# PYTHON=python3.12 make demo    chooses the interpreter (3.11 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
BENCHMARKS = $(filter-out %/__init__.py,$(wildcard benchmarks/[!_]*.py))

FUZZ_SECONDS ?= 60
FUZZ_FIRST ?=

.PHONY: demo test test-all check fuzz benchmark clean

demo: $(VENV)/.installed
	$(BIN)/oncoseg demo

test: check
	$(BIN)/pytest -m "not slow"
	$(BIN)/python tests/fuzz_nifti.py --runs 3000

test-all: check
	$(BIN)/pytest

check: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests $(wildcard benchmarks)
	$(BIN)/ruff format --check src tests $(wildcard benchmarks)
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz_nifti.py --seconds $$(($(FUZZ_SECONDS) / 2)) $(FUZZ_FIRST:%=--first %)
	$(BIN)/python tests/fuzz_dicom.py --seconds $$(($(FUZZ_SECONDS) / 2)) $(FUZZ_FIRST:%=--first %)

benchmark: $(VENV)/.installed-dev
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) oncoseg-demo fuzz-findings build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# the stamps make an install happen only when what is installed has changed
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing oncoseg into $(VENV) (some minutes the first time) ..."
	@$(PIP) -e '.[tensorboard]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing oncoseg and its development tools into $(VENV) (some minutes the first time) ..."
	@$(PIP) -e '.[codecs,formats,tensorboard,dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "oncoseg needs Python 3.11 or newer; name one, for example: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
