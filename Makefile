# Everything runs in a virtual environment that the first target makes and fills.
#
#   make quickstart                       train a Perceiver IO on handwritten digits and use it
#   make test                             the test suite of every day
#   make test-all                         the long tests too
#   make test PYTHON=python3.13 VENV=.venv-3.13
#   make help                             all targets

PYTHON ?= python3
VENV ?= .venv
# Extra words for pytest: make test ARGS="-k resume".
ARGS ?=
# Processes that share the tests; one takes up to 6 GiB.
WORKERS ?= 2
# A process that crashes ends the run: replaced, the run may wait for it for ever.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --max-worker-restart 0
# The interpreters that `make pins` freezes.
PYTHON311 ?= python3.11
PYTHON312 ?= python3.12

BIN := $(VENV)/bin
RUN := runs/quickstart

# An environment that is complete keeps the interpreter that it was made with.
MADE := $(and $(wildcard $(BIN)/python),$(wildcard $(BIN)/pip))
INTERPRETER := $(if $(MADE),$(BIN)/python,$(PYTHON))
VERSION := $(shell $(INTERPRETER) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# The pinned set for that interpreter: empty where there is none.
PINS := $(shell $(INTERPRETER) -c 'import sys; v = sys.version_info[:2]; print("" if v < (3, 11) else "requirements/py311.txt" if v == (3, 11) else "requirements/py312.txt")' 2>/dev/null)
STAMP := $(VENV)/.installed
# What the tests have beyond it: TensorFlow, with which TFDS prepares data.
PREPARE_PINS := $(PINS:.txt=-prepare.txt)
TEST_STAMP := $(VENV)/.installed-prepare
# What the site of docs/ needs beyond it, at versions that agree with every pinned set.
DOCS_PINS := requirements/docs.txt
DOCS_STAMP := $(VENV)/.installed-docs

# A PYTHON given by hand must not be ignored in silence because $(VENV) has another one.
ifeq ($(origin PYTHON)$(if $(MADE),, none),command line)
ASKED := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(ASKED),$(VERSION))
$(error $(VENV) was made with Python $(VERSION), not with $(PYTHON) ($(or $(ASKED),does not run)); add VENV=.venv-$(or $(ASKED),other) or remove $(VENV))
endif
endif

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-core notebooks docs lint format venv pins clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \2/p' $(MAKEFILE_LIST) | awk '{n = $$2; $$1 = $$2 = ""; printf "  make %-12s%s\n", n, $$0}'

quickstart: $(STAMP)  ## Train on digits, evaluate, classify the sample pictures
	$(BIN)/python -m train --config=configs/digits.py --workdir=$(RUN)
	$(BIN)/python -m perceiver.predict $(RUN) $(RUN)/samples/*.png
	@echo "Look at $(RUN)/attention.png and $(RUN)/curves.png. Next:"
	@echo "  $(BIN)/python -m perceiver.predict $(RUN) YOUR_DIGIT.png     light ink on dark, any size"
	@echo "  $(BIN)/python -m train --config=configs/masked_lm.py:embedded --workdir=runs/bytes"

test: $(TEST_STAMP)  ## Run the tests of every day
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(TEST_STAMP)  ## Run all tests: long ones, notebooks, more examples
	$(PYTEST) --hypothesis-profile=night $(ARGS)

test-core: $(TEST_STAMP)  ## Run the few minutes that every version of Python must pass
	$(PYTEST) -m "core and not slow" $(ARGS)

notebooks: $(STAMP)  ## Execute every notebook
	$(BIN)/python -m pytest tests/contracts/test_notebooks.py $(ARGS)

docs: $(DOCS_STAMP)  ## Build the site of docs/ into build/docs; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

lint: $(STAMP) docs  ## Check style and formatting, and build the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## Repair style and formatting where that can be automatic
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: $(STAMP)  ## Make the virtual environment and install the pinned packages

pins:  ## Write requirements/*.txt again from setup.py
	$(PYTHON311) requirements/freeze.py --jax 0.10.2 --out requirements/py311.txt
	$(PYTHON312) requirements/freeze.py --jax 0.12.0.1 --out requirements/py312.txt
	$(PYTHON311) requirements/freeze.py --docs --out $(DOCS_PINS)

clean:  ## Remove the environment, caches and build products; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# The stamp is written last, so an interrupted installation is taken up again, and it is older
# than a changed pinned set, which is then installed.
$(STAMP): $(PINS) setup.py
	$(if $(VERSION),,$(error '$(INTERPRETER)' does not run; install Python 3.11 or newer and name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11))
	$(if $(PINS),,$(error '$(INTERPRETER)' is Python $(VERSION), this project needs 3.11 or newer; name another one: make $(MAKECMDGOALS) PYTHON=python3.11))
	@$(if $(MADE),true,$(PYTHON) -m venv --clear $(VENV)) || { rm -rf $(VENV); \
	    echo "cannot make $(VENV): on Debian and Ubuntu run 'apt install python$(VERSION)-venv' and try again" >&2; exit 1; }
	@echo "Installing $(PINS) into $(VENV) for Python $(VERSION); this takes a minute or two."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(PINS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(TEST_STAMP): $(STAMP) $(PREPARE_PINS)
	@echo "Installing $(PREPARE_PINS) for the tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(PREPARE_PINS)
	@touch $@

$(DOCS_STAMP): $(STAMP) $(DOCS_PINS)
	@echo "Installing $(DOCS_PINS) for the documentation"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(DOCS_PINS) -c $(PINS)
	@touch $@
