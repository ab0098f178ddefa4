# Everything a person needs to type. `make` alone shows this list.
SHELL := /bin/bash
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible loads most of its code anew for each task: compiled anew each time, that is half of what it computes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab lab-down lab-status test lint unit sanity molecule scenario one bench test-lab docs build

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

lab: ## A miniature bank in containers, from nothing to a smoke test
	@python3 lab/prepare.py all
	@"$(BIN)/python" -m lab up

lab-down: ## Remove the lab's containers and networks
	@"$(BIN)/python" -m lab down

lab-status: ## What runs, what is real, a command to try
	@"$(BIN)/python" -m lab status

test: ## Everything: lint, unit tests, sanity, all Molecule scenarios, the lab end to end
	@python3 lab/prepare.py docker venv
	@"$(BIN)/python" -m tests

lint: ## Linters and type checks
	@python3 lab/prepare.py venv
	@"$(BIN)/python" -m tests lint

unit: ## Unit tests
	@python3 lab/prepare.py venv
	@"$(BIN)/python" -m tests unit

sanity: ## ansible-test sanity
	@python3 lab/prepare.py venv
	@"$(BIN)/python" -m tests sanity

molecule: ## All Molecule scenarios
	@python3 lab/prepare.py all
	@"$(BIN)/python" -m tests molecule

scenario: ## One Molecule scenario: make scenario S=patroni
	@python3 lab/prepare.py all
	@"$(BIN)/molecule" test --scenario-name "$(S)"

one: ## One test file, or what pytest takes: make one T=tests/unit/test_patroni.py
	@python3 lab/prepare.py venv
	@"$(BIN)/pytest" $(T)

bench: ## One benchmark, and what it takes: make bench B=lab A=--fresh
	@python3 lab/prepare.py docker venv
	@"$(BIN)/python" "tests/benchmarks/$(or $(B),lab).py" $(A)

test-lab: ## The lab end to end
	@python3 lab/prepare.py all
	@"$(BIN)/python" -m tests lab

docs: ## Generate the reference pages from the code
	@"$(BIN)/python" docs/generate.py

build: ## Build the collection's artefact into build/
	@"$(BIN)/ansible-galaxy" collection build --force --output-path build
