# Everything a contributor does, by name.  `make` alone explains.
.DEFAULT_GOAL := help
.PHONY: help setup engine browser registry quickstart test test-all reproducibility figures benchmark serving lint format types docs lock clean

VENV := .venv/bin

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Make .venv from the hash-pinned lock (quick where it is there already)
	@scripts/setup.sh

engine: setup ## Make sure that a container engine answers
	@$(VENV)/python scripts/ensure_engine.py

browser: setup ## Make sure that there is a Chromium for the tests of the image's page
	@$(VENV)/python scripts/ensure_browser.py

registry: setup ## Make sure that there is a registry for the tests of push
	@$(VENV)/python scripts/ensure_registry.py

quickstart: engine ## The whole story: bake, train, lock, build, smoke-test, verify
	@scripts/quickstart.sh

test: engine browser registry lint types docs ## Set everything up and pass all the tests
	$(VENV)/python -m pytest -n 2 --dist loadgroup

test-all: engine browser registry lint types docs ## All of that, and the tests that take minutes each
	$(VENV)/python -m pytest -n 2 --dist loadgroup -m "whole or not whole"

reproducibility: engine ## Build the example in all the circumstances of docs/reproducibility.md
	$(VENV)/python scripts/reproducibility.py

figures: engine ## Measure what docs/figures.md shows (needs a quiet machine)
	$(VENV)/python benchmarks/compressors.py
	$(VENV)/python benchmarks/bytecode.py

benchmark: engine registry ## Compare with the peers, write docs/benchmarks.md (as root; takes an hour or two)
	$(VENV)/python benchmarks/run.py

serving: engine ## Ask our server and others side by side, write docs/serving-figures.md (needs wrk)
	$(VENV)/python benchmarks/serving.py

lint: setup ## ruff and black, changing nothing
	$(VENV)/ruff check .
	$(VENV)/black --check --quiet .

format: setup ## Let ruff and black change the files
	$(VENV)/ruff check --fix .
	$(VENV)/black --quiet .

types: setup ## mypy, strict
	$(VENV)/mypy

docs: setup ## Build the API's pages into build/docs
	$(VENV)/python -W error -m pdoc --docformat numpy -o build/docs packager

lock: setup ## Renew requirements-dev.txt from pyproject.toml
	$(VENV)/python scripts/lock.py

clean: ## Remove what was built (not .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
