# Everything here works from a fresh clone with Python 3.11+ and make: a target first gets itself what it needs into .venv.
#
#   make demo ARGS=...       passes ... on to the program
#   make test PYTHON=...     makes .venv with that interpreter (only when there is no .venv yet)

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SUFFIXES:
# A stamp is written last in its recipe; should a recipe fail half-way, make must not keep what it wrote.
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
# What takes long to make, and fits any clone.
export CACHE_DIR ?= $(CURDIR)/.cache
TOOLS := $(CACHE_DIR)/deploy-tools
COMPARED := .cache/benchmark
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
TESTS := ecommerce_worker/tests
# Tests run in several processes, each with services of its own: most of them wait most of the time. A choice by name
# runs in one, which begins sooner.
FOR_EACH_PROCESSOR := 4
test-system: FOR_EACH_PROCESSOR := 2 # these keep the processors busy
PROCESSES ?= $(shell n=$$(($(FOR_EACH_PROCESSOR) * $$(getconf _NPROCESSORS_ONLN))); echo $$((n > 16 ? 16 : n)))
AT_ONCE ?= $(if $(findstring -k,$(ARGS)),,--numprocesses $(PROCESSES) --dist worksteal)
PIP_COMPILE := $(BIN)/pip-compile --quiet --upgrade --strip-extras \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

# Options for the program that a target runs.
ARGS ?=
# An interpreter of your choice; empty: the first suitable one (see deploy/venv.sh).
PYTHON ?=

# The bytecode of our modules is kept: the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help requirements production-requirements upgrade worker console recorder beat intake check status up flower demo rabbitmq rabbitmq-stop \
	test test-unit test-broker test-rabbitmq test-system test-browser coverage quality types documents reference docs images validate benchmark chaos fuzz \
	clean programs image deploy-tools

help: ## List the targets
	@echo 'Usage: make <target> [ARGS="..."] [PYTHON=python3.12]'
	@echo
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/\1	\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='	' read -r target text; do printf '  %-24s %s\n' "$$target" "$$text"; done

# ---------------------------------------------------------------------------------------------------------------------
# Running it

demo: $(VENV)/.installed-production ## Show it at work: a pretend shop, a broker, a worker, sixteen orders, three mails (KEEP=1: leave it running)
	@exec $(BIN)/ecommerce-worker demo $(if $(KEEP),--keep) $(ARGS)

worker: $(VENV)/.installed-production ## Run a worker (ARGS="--concurrency 64" and the like)
	@exec $(BIN)/ecommerce-worker worker $(ARGS)

up: $(VENV)/.installed-production ## Run all of a small site together: recorder, worker, console, beat, intake
	@exec $(BIN)/ecommerce-worker up $(ARGS)

flower: $(VENV)/.installed-production ## Serve Flower, Celery's own monitor, on loopback and read-only
	@$(BIN)/python -c 'import flower' 2>/dev/null || $(PIP) install 'flower>=2.2'
	@exec $(BIN)/ecommerce-worker flower $(ARGS)

check: $(VENV)/.installed-production ## Print the configuration in force and everything wrong with it
	@exec $(BIN)/ecommerce-worker check $(ARGS)

console: $(VENV)/.installed-production ## Serve the pages for support staff and operators
	@$(BIN)/ecommerce-worker migrate
	@exec $(BIN)/ecommerce-worker console $(ARGS)

recorder: $(VENV)/.installed-production ## Write facts and parked messages into the ledger
	@$(BIN)/ecommerce-worker migrate
	@exec $(BIN)/ecommerce-worker recorder $(ARGS)

beat: $(VENV)/.installed-production ## Publish the jobs of SCHEDULE when they are due
	@exec $(BIN)/ecommerce-worker beat $(ARGS)

intake: $(VENV)/.installed-production ## Take signed webhooks of shops, as INTAKES says
	@exec $(BIN)/ecommerce-worker intake $(ARGS)

status: $(VENV)/.installed-production ## Show workers, queues, waiting and parked orders
	@exec $(BIN)/ecommerce-worker status $(ARGS)

rabbitmq: ## Get a RabbitMQ for development going on 127.0.0.1:5672
	@exec deploy/rabbitmq.sh start

rabbitmq-stop: ## Stop the RabbitMQ that `make rabbitmq` started
	@exec deploy/rabbitmq.sh stop

# ---------------------------------------------------------------------------------------------------------------------
# Working on it

test: $(VENV)/.installed-test programs ## Run the tests of the package and of real workers at a real broker (ARGS="-k parked" for some)
	$(BIN)/python -m pytest $(AT_ONCE) $(TESTS)/unit $(TESTS)/contract $(TESTS)/broker $(ARGS)

test-unit: $(VENV)/.installed-test ## Run the tests that need no broker
	$(BIN)/python -m pytest $(AT_ONCE) $(TESTS)/unit $(TESTS)/contract $(ARGS)

test-broker: $(VENV)/.installed-test programs ## Run the tests against a real, private RabbitMQ
	$(BIN)/python -m pytest $(AT_ONCE) $(TESTS)/broker $(ARGS)

test-system: $(VENV)/.installed-test programs deploy-tools ## Run the slow tests: the demonstration, chaos, a browser, the shop's pins, deploy/
	@deploy/install.sh buildah debootstrap || true
	$(BIN)/python -m pytest $(AT_ONCE) $(TESTS)/system $(TESTS)/browser $(ARGS)

test-browser: $(VENV)/.installed-test programs ## Run the tests with a real Chromium
	$(BIN)/python -m pytest $(TESTS)/browser $(ARGS)

# Each process that the tests start is measured too.
coverage: $(VENV)/.installed-test programs ## Run `test` and list the lines that no test reaches, in .coverage-report
	$(BIN)/coverage erase --rcfile tox.ini
	$(BIN)/coverage run --rcfile tox.ini -m pytest $(AT_ONCE) \
		$(TESTS)/unit $(TESTS)/contract $(TESTS)/broker $(ARGS)
	$(BIN)/coverage combine --quiet --rcfile tox.ini
	$(BIN)/coverage report --rcfile tox.ini | tee .coverage-report | tail -n 1

# 4.0 and newest, in the words of .ci/rabbitmq-version.sh, which keeps what it gets in CACHE_DIR.
VERSION ?= newest

test-rabbitmq: $(VENV)/.installed-test programs ## Run the same against another version (VERSION=4.0, VERSION=newest)
	@programs=$$(.ci/rabbitmq-version.sh $(VERSION)) && export RABBITMQ_PROGRAMS="$$programs" REQUIRE_BROKER=1 && \
		$(BIN)/python -m pytest $(AT_ONCE) $(TESTS)/broker $(ARGS)

# The broker tests start services of their own from these. Without them they say so and are skipped (under CI=true or
# REQUIRE_BROKER=1 they fail), so a failure to install them does not keep the other tests from running.
programs:
	@deploy/install.sh rabbitmq-server redis-server postgresql mariadb-server || true
	@deploy/install.sh chromium chromium-driver || true
	@deploy/install.sh prometheus || true

quality: $(VENV)/.installed-quality ## Lint, check types, check the documents
	$(BIN)/ruff check --config .ci/ruff.toml .
	@$(MAKE) --no-print-directory --jobs=2 types documents

types: $(VENV)/.installed-quality
	$(BIN)/mypy --config-file tox.ini ecommerce_worker benchmarks

documents: $(VENV)/.installed-quality
	$(BIN)/python .ci/documents.py README.rst CHANGELOG.rst docs
	@$(MAKE) --no-print-directory docs

reference: $(VENV)/.installed-production ## Write docs/reference/settings.rst anew from the settings
	$(BIN)/python docs/settings_page.py

docs: $(VENV)/.installed-quality ## Build the pages into build/docs, and look at the links between them
	$(BIN)/sphinx-build -q -E -W --keep-going -n -c docs . build/docs

images: $(VENV)/.installed-test programs ## Take the pictures of the console in docs/images anew
	@deploy/install.sh pngquant
	$(BIN)/python -m pytest $(TESTS)/browser/images.py $(ARGS)
	pngquant --force --ext .png docs/images/*.png

validate: ## All of it: test, test-system and quality
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory test-system
	@$(MAKE) --no-print-directory quality

image: ## Build the image of deploy/container without a registry, as root on Debian
	@deploy/install.sh buildah debootstrap
	@exec .ci/image.sh

benchmark: $(VENV)/.installed-test $(COMPARED)/.installed ## Measure what an order costs, beside stock Celery and dramatiq (ARGS=--quick)
	@deploy/install.sh rabbitmq-server
	@exec $(BIN)/python -m benchmarks.orders $(ARGS)

chaos: $(VENV)/.installed-test programs ## Break everything while orders go through, and count them (ARGS=--help)
	@exec $(BIN)/python -m ecommerce_worker.tests.chaos $(ARGS)

fuzz: $(VENV)/.installed-test ## Send 100,000 messages that nobody should send to a worker and a recorder (ARGS="--messages 5000 --seed 7")
	@deploy/install.sh rabbitmq-server
	@exec $(BIN)/python -m ecommerce_worker.tests.broker.fuzz $(ARGS)

clean: ## Remove .venv and everything else that can be made again
	rm -rf $(VENV) .cache .tox build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage-report htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------------------------
# Requirements

requirements: $(VENV)/.installed-quality ## Install what development needs into .venv
	@:

production-requirements: $(VENV)/.installed-production ## Install what a fulfilment server needs into .venv
	@:

# An environment of its own: what these bring is not for the worker's tests to meet.
deploy-tools: $(VENV)/.made ## Install what the tests of deploy/ check its files with
	@cmp -s requirements/deploy.txt $(TOOLS)/.installed && test -x $(TOOLS)/bin/python || { \
		echo 'installing what deploy/ is checked with into $(TOOLS) ...' && \
		$(BIN)/python -m venv --clear $(TOOLS) && \
		$(TOOLS)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input install \
			-r requirements/deploy.txt && \
		cp requirements/deploy.txt $(TOOLS)/.installed; }

# What the worker is compared with is nothing that it needs.
$(COMPARED)/.installed: $(VENV)/.made requirements/benchmark.txt
	@echo 'installing what the worker is compared with into $(COMPARED) ...'
	@$(BIN)/python -m venv $(COMPARED)
	@$(COMPARED)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input install -r requirements/benchmark.txt
	@touch $@

# Under the oldest Python supported: pins made under a newer one may not exist for it. The order matters: each file holds
# the pins of the one before.
upgrade: $(VENV)/.installed-pip_tools ## Move all pins in requirements/*.txt to the newest versions
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo 'make upgrade: pins are made under Python 3.11: make clean; make upgrade PYTHON=python3.11' >&2; exit 1; }
	@for name in base production test quality tox pip_tools deploy benchmark; do \
		echo "compiling requirements/$$name.txt"; \
		CUSTOM_COMPILE_COMMAND='make upgrade' $(PIP_COMPILE) -o requirements/$$name.txt requirements/$$name.in || exit 1; \
	done
	@CUSTOM_COMPILE_COMMAND='make upgrade' $(PIP_COMPILE) --generate-hashes --allow-unsafe -o deploy/container/build.txt \
		deploy/container/build.in
	@CUSTOM_COMPILE_COMMAND='make upgrade' $(PIP_COMPILE) --generate-hashes -o deploy/container/requirements.txt \
		requirements/production.txt

# The stamp of a .venv that was made elsewhere (the clone was moved) or whose interpreter is gone counts for nothing.
ifneq ($(shell test -x $(BIN)/python && cat $(VENV)/.made 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made:
	@PYTHON='$(PYTHON)' deploy/venv.sh $(VENV)
	@printf '%s\n' '$(CURDIR)' > $@

# One after the other, also under `make -j`: two pips must not write into one .venv at a time.
$(VENV)/.installed-production: $(VENV)/.made requirements/production.txt requirements/base.in setup.py
	@echo 'installing the worker into $(VENV) ...'
	@$(PIP) install -r requirements/production.txt
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-production requirements/test.txt
	@echo 'installing what the tests need into $(VENV) ...'
	@$(PIP) install -r requirements/test.txt
	@touch $@

$(VENV)/.installed-quality: $(VENV)/.installed-test requirements/quality.txt
	@echo 'installing what the linters need into $(VENV) ...'
	@$(PIP) install -r requirements/quality.txt
	@touch $@

$(VENV)/.installed-pip_tools: $(VENV)/.made requirements/pip_tools.txt | $(VENV)/.installed-production
	@echo 'installing pip-tools into $(VENV) ...'
	@$(PIP) install -r requirements/pip_tools.txt
	@touch $@
