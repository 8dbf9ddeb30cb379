# `make demo` and `make test` do all the set-up themselves. `make` alone lists what there is.

PYTHON ?= python3
VENV ?= .venv
ADDRESS ?= 127.0.0.1:8000
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip install --quiet --disable-pip-version-check
PYTEST = -m pytest -o faulthandler_timeout=60
# Real sockets, time and processes on a machine that others load too: what fails once and passes
# when it runs alone is told in the output and no failure.
AGAIN = --last-failed --last-failed-no-failures none
ALONE = [ $$? -eq 1 ] && echo 'Once more, alone, what failed beside others:'
STRICT = ollama_bridge/core/*,ollama_bridge/errors.py,ollama_bridge/conf.py

.PHONY: help demo test lint soak matrix bench clean

help:
	@echo 'make demo    the site on http://$(ADDRESS), with Ollama or with a simulator of it'
	@echo 'make test    the whole test suite, with branch coverage and its limits'
	@echo 'make lint    style, types, layers, system checks'
	@echo 'make soak    the long tests (some minutes)'
	@echo 'make matrix  the test suite on each Python and Django that is supported and installed'
	@echo 'make bench   what a call costs, beside others who do the same (some minutes)'
	@echo 'make clean   remove the environment and everything that was made from the sources'
	@echo
	@echo 'Needs Python 3.11 or newer. Another than python3:  make demo PYTHON=python3.12'
	@echo 'Another address:  make demo ADDRESS=127.0.0.1:8001'

demo: $(VENV)/.for-demo
	$(RUN) -u manage.py demo $(ADDRESS)

test: $(VENV)/.for-test
	$(RUN) -m coverage erase
	$(RUN) -m coverage run $(PYTEST) --numprocesses 4 || \
	  { $(ALONE) && $(RUN) -m coverage run $(PYTEST) $(AGAIN); }
	$(RUN) -m coverage combine --quiet
	@echo 'Coverage, at least 95 %:'
	$(RUN) -m coverage report --fail-under=95
	@echo 'Coverage of the core, errors and settings, exactly 100 %:'
	$(RUN) -m coverage report --fail-under=100 --include='$(STRICT)'

lint: $(VENV)/.for-lint
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) manage.py check --fail-level WARNING
	$(RUN) manage.py makemigrations --check --dry-run

soak: $(VENV)/.for-test
	$(RUN) -m pytest -m soak || { $(ALONE) && $(RUN) -m pytest -m soak $(AGAIN); }

matrix: $(VENV)/.for-matrix
	$(RUN) -m nox

bench: $(VENV)/.for-bench
	$(RUN) -m benchmarks

clean:
	rm -rf $(VENV) .nox build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# The environment. Each stamp says that what a command needs is installed, as pyproject.toml has it.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that: $$($(PYTHON) --version 2>&1)" >&2; \
	  echo 'Install it, or name another one:  make PYTHON=python3.12 demo' >&2; exit 1; }
	@echo 'Making the environment $(VENV), once …'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.for-demo: $(VENV)/.made pyproject.toml
	@echo 'Installing ollama_bridge and what it needs …'
	@$(PIP) --editable . --group demo
	@touch $@

$(VENV)/.for-test: $(VENV)/.made pyproject.toml
	@echo 'Installing ollama_bridge and what its tests need …'
	@$(PIP) --editable . --group test
	@touch $@ $(VENV)/.for-demo

$(VENV)/.for-lint: $(VENV)/.made pyproject.toml
	@echo 'Installing ollama_bridge and what its checks need …'
	@$(PIP) --editable . --group lint
	@touch $@ $(VENV)/.for-demo $(VENV)/.for-test

$(VENV)/.for-matrix: $(VENV)/.made pyproject.toml
	@$(PIP) --group matrix
	@touch $@

$(VENV)/.for-bench: $(VENV)/.made pyproject.toml
	@echo 'Installing ollama_bridge and what it is measured against …'
	@$(PIP) --editable . --group benchmarks
	@touch $@
