# The two commands are `make demo` and `make test`; both set up .venv first, once.
# PYTHON=/path/to/python3.12 picks the interpreter that .venv is made with.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-matrix test-slow test-faults test-browser test-gpu bench gpu-pack \
	gpu-check test-slurm lint lint-docker docs docs-serve docs-links lock audit sbom licences dist clean

# The commands of the project call `python` (or $PYTHON): let it be the one in .venv.
RUN = PYTHON=python PATH="$(CURDIR)/.venv/bin:$$PATH"
# The variable silences an advertisement of mkdocs-material.
SITE = $(RUN) NO_MKDOCS_2_WARNING=1 python -m mkdocs

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1@\2/p' Makefile | awk -F@ '{ printf "%-16s %s\n", $$1, $$2 }'

setup: ## make .venv with all that is needed (about 2.5 GB to fetch; does nothing the second time)
	@sh scripts/setup_env.sh

demo: setup ## draw data, train on it, evaluate, and make a picture of the result (4 minutes)
	@$(RUN) sh scripts/demo.sh

test: setup ## run the tests
	@$(RUN) python -m pytest

test-matrix: setup ## run them on several versions of Python, PyTorch ...; OPTIONS="lowest newest"
	@$(RUN) python scripts/matrix $(OPTIONS)

test-slow: setup ## run the tests that take longer
	@$(RUN) python -m pytest -m slow --ignore=tests/faults

test-faults: setup ## try wrong inputs, kill -9 and faults of the machine (20 minutes; root tries more)
	@$(RUN) python -m pytest -q -m slow tests/faults

test-browser: setup ## run the tests that need Chromium (as root on Debian: installs it)
	@sh tests/helpers/install_chromium.sh
	@$(RUN) python -m pytest -rs -m browser

test-gpu: setup ## run the tests that need a CUDA device
	@$(RUN) python -m pytest -m gpu

bench: setup ## measure on this machine, against references and limits; OPTIONS="blocks --minutes 3"
	@$(RUN) python -m benchmarks $(OPTIONS)

gpu-pack: setup ## copy what a GPU machine without a network lacks into build/gpu-packages (docs/gpu.md)
	@$(RUN) python -m benchmarks.pack build/gpu-packages

# Without .venv the Python that has PyTorch does: nothing is set up on a GPU machine.
gpu-check: ## measure everything on one GPU, in 8 minutes, and test it; OPTIONS="tests" (docs/gpu.md)
	@if [ -x .venv/bin/python ]; then $(RUN) python -m benchmarks --device cuda $(OPTIONS); \
	else "$${PYTHON:-python3}" -m benchmarks --device cuda $(OPTIONS); fi

test-slurm: setup ## run the tests on a Slurm of two pretended nodes (root; Debian and Ubuntu: installs it)
	@sh tests/slurm/install.sh
	@$(RUN) python -m pytest -rs -m slow tests/slurm

lint: setup ## check the style of the code, and its types
	@$(RUN) ruff check .
	@$(RUN) mypy

lint-docker: ## check the Dockerfile (needs hadolint)
	@hadolint Dockerfile

docs: setup ## build the documentation site into build/site, and check its links
	@$(SITE) build --strict

docs-serve: setup ## show the site on http://127.0.0.1:8000 while pages are written
	@$(SITE) serve --watch README.md --watch CONTRIBUTING.md --watch CHANGELOG.md --watch mmseg_custom

docs-links: setup ## ask for every address that the docs link to (network)
	@$(RUN) python scripts/docs/addresses.py

lock: setup ## write requirements/*.lock anew; OPTIONS="--upgrade-package numpy" (network)
	@$(RUN) sh scripts/supply_chain.sh lock $(OPTIONS)

audit: setup ## ask the advisory database about the packages of the locks (network)
	@$(RUN) sh scripts/supply_chain.sh audit $(OPTIONS)

sbom: setup ## write build/sbom.json, a bill of materials in CycloneDX's format
	@$(RUN) python scripts/sbom.py build/sbom.json

licences: setup ## write docs/licences.md from the locks and the installed packages
	@$(RUN) python scripts/licences.py

dist: setup ## build sdist and wheel into dist/, and check their metadata (network)
	@$(RUN) sh scripts/supply_chain.sh dist

clean: ## remove what the demo and the tests made (.venv, data/ade and weights stay)
	rm -rf work_dirs/demo data/ade_demo build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
