# Copyright: mwaa.migration contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The one entrance. Every target sets up what it needs; it is quick the second time.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

PYTHON ?= python3
UV_VERSION := 0.13.8
CACHE := $(CURDIR)/.cache
VENV := $(CURDIR)/.venv
UV := $(CACHE)/uv/bin/uv
COLLECTION := $(CACHE)/collections/ansible_collections/mwaa/migration
LAB := $(CURDIR)/.lab
# a rehearsal ends with its lab; the one of `make lab` stays
REHEARSAL := $(CURDIR)/.lab-rehearsal

# make rehearse: the Airflow that is left, the version that is entered, and what the source holds
SOURCE ?= 2.10.3
TARGET ?= 2.11.2
SEED ?= small
SOURCE_DATABASE ?= postgresql
# how the environment comes into being: stacks, or direct
DEPLOY ?= stacks

export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export ANSIBLE_COLLECTIONS_PATH := $(CACHE)/collections
export PATH := $(VENV)/bin:$(PATH)
export PYTHONPATH := $(CACHE)/collections
# the certificates that the machine trusts, as behind a proxy that inspects TLS
export UV_SYSTEM_CERTS ?= 1
unexport VIRTUAL_ENV

.PHONY: help setup rehearse lab lab-down test versions lint unit lab-test e2e e2e-all sanity build matrix bench soak lock clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready $(COLLECTION)/galaxy.yml ## the Python environment with locked versions

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}. Say make PYTHON=/path/to/python3.")'
	$(PYTHON) -m venv $(CACHE)/uv
	$(CACHE)/uv/bin/python -m pip --quiet --disable-pip-version-check install uv==$(UV_VERSION)

$(VENV)/.ready: requirements-dev.txt lab/pyproject.toml | $(UV)
	@echo "setting up .venv with the locked versions: about a minute, once"
	$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	$(UV) pip sync --quiet --compile-bytecode --python $(VENV)/bin/python requirements-dev.txt
	$(UV) pip install --quiet --no-deps --python $(VENV)/bin/python --editable lab
	touch $@

# ansible, ansible-lint and pytest find the clone as mwaa.migration through this link.
$(COLLECTION)/galaxy.yml:
	@mkdir -p $(dir $(COLLECTION))
	ln -sfn $(CURDIR) $(COLLECTION)

rehearse: SOURCES = $(or $(INVENTORY),$(HOSTS:%=inventories/lab-hosts/%.yml),$(if $(filter mwaa:%,$(SOURCE)),inventories/lab-hosts/mwaa.yml))
rehearse: setup ## the main job in the lab: SOURCE=2.10.3|mwaa:2.10.3 TARGET=2.11.2 [SEED=small|large|none] [SOURCE_DATABASE=sqlite] [DEPLOY=direct] [LANE=…] [HOSTS=become|old-python|compose|workers|drifted] [INVENTORY=your own source]
	@trap 'mwaa-lab down --dir $(REHEARSAL)' EXIT
	as_of=$$(mwaa-lab as-of $(TARGET))
	[ -z "$$as_of" ] || echo "AWS ended Airflow $(TARGET) on $$as_of and creates no environment with it any more: the lab stands on that day"
	mwaa-lab up --dir $(REHEARSAL) --source $(if $(INVENTORY),none,$(SOURCE)) --source-database $(SOURCE_DATABASE) \
	  --seed-data $(SEED) $${as_of:+--as-of $$as_of} $(if $(filter old-python,$(HOSTS)),--source-python-host 3.6)
	eval "$$(mwaa-lab env --dir $(REHEARSAL))"
	ansible-playbook $(if $(SOURCES),$(SOURCES:%=-i %) -i inventories/lab/target.yml -i inventories/lab/inside.yml -e @inventories/lab/group_vars/all.yml,-i inventories/lab) \
	  -e migration_airflow_version=$(TARGET) -e migration_deploy=$(DEPLOY) $(if $(LANE),-e migration_lane=$(LANE)) \
	  $${as_of:+-e preflight_fail_on=never} playbooks/rehearse.yml

lab: setup ## a lab to play with: then . .venv/bin/activate; eval "$(mwaa-lab env)"
	@mwaa-lab up --dir $(LAB) --source $(SOURCE) --seed-data $(SEED)

lab-down: setup ## stop it and remove it
	@mwaa-lab down --dir $(LAB)

test: setup ## everything CI runs: the tests that mostly wait beside the checks that mostly compute, then the real Airflows
	@$(MAKE) --no-print-directory -j2 -Otarget lab-test lint unit build sanity
	$(MAKE) --no-print-directory e2e

versions: setup
	@python -c 'import sys, ansible.release as core, botocore, importlib.metadata as m; print("Python", sys.version.split()[0], "ansible", m.version("ansible"), "core", core.__version__, "amazon.aws of that bundle, botocore", botocore.__version__)'

lint: versions ## ruff, mypy, ansible-lint (production), cfn-lint, documentation
	@ruff check . && ruff format --check .
	mypy plugins/module_utils lab/src
	ansible-lint --offline --profile production
	cfn-lint roles/*/files/*.template
	tests/sanity/docs-lint

unit: versions ## milliseconds each
	@python -m pytest -q -n 2 tests/unit

lab-test: versions ## playbooks and modules against stub environments, but for what takes minutes
	@python -m pytest -q -m "lab and not (slow or e2e)" -n 4 --dist loadfile tests/integration

e2e: versions ## the main job, one real Airflow to another
	@python -m pytest -q tests/e2e/test_main_job.py

e2e-all: versions ## everything that has real Airflows or takes minutes: every lane, the lab itself, kills, caller policies (not in CI: hours)
	@python -m pytest -q -m "e2e or slow" tests/e2e tests/integration

sanity: versions ## ansible-test sanity
	@tests/sanity/run

build: versions ## the tarball, installed offline into an empty place
	@tests/sanity/build

matrix: setup ## rehearse pairs of versions, one after another, and write docs/matrix.md: [PAIRS="1.10.15:2.5.1 …"]
	@python tests/rehearsals/matrix.py $(PAIRS)

BENCH := $(CACHE)/benchmarks/lab
bench: setup ## run history beside mwaa-dr and psql, then memory: writes docs/performance.md (an hour on two cores, 35 GB of disk)
	@python tests/benchmarks/bench_history.py --folder $(BENCH) --publish
	python tests/benchmarks/bench_history.py --folder $(BENCH) --memory 35000,350000,1750000 --publish

KILLS ?= 50
SEED_OF_KILLS ?= 1
soak: setup ## kill -9 at random, 50 times each: the agent beside a PostgreSQL (15 minutes), then playbooks with real Airflows (45 minutes): [KILLS=50]
	@python tests/soak/soak_agent.py --kills $(KILLS) --seed $(SEED_OF_KILLS)
	python tests/soak/soak_playbook.py --kills $(KILLS) --seed $(SEED_OF_KILLS)

lock: $(UV) ## requirements-dev.in to requirements-dev.txt
	@$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --no-header -o requirements-dev.txt requirements-dev.in

clean: ## remove what make made
	@[ ! -x $(VENV)/bin/mwaa-lab ] || for lab in $(LAB) $(REHEARSAL); do $(VENV)/bin/mwaa-lab down --dir $$lab; done
	rm -rf $(VENV) $(CACHE) $(LAB) $(REHEARSAL) build
