# Bare `make` lists the targets. Everything CI runs is a target here.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
# Where this is set (containers often set it), every start of an engine compiles all of PyTorch and Transformers
# anew: 34 s instead of 11 on two cores.
export PYTHONDONTWRITEBYTECODE :=

LF := .venv
AXOLOTL := .venv-axolotl
UV_VERSION := 0.13.8
# A uv that is on PATH but does not start (a version manager's stub) counts as missing.
UV := $(shell uv --version >/dev/null 2>&1 && command -v uv || echo .tools/uv/bin/uv)
# Any interpreter in this range will do; uv looks on PATH first and downloads one only if none is there.
PYTHON := >=3.11,<3.14
# What the browser tests, the shell scripts' checks, DeepSpeed's build and the emulated cluster (SLURM, sshd,
# network namespaces) need from Debian or Ubuntu.
DEBIAN := chromium g++ git iproute2 make munge openssh-server shellcheck slurm-client slurmctld slurmd

TINY := output/tiny/qwen3
DEMO_RUN := output/demo/recommend
DEMO_REPORT := reports/demo
EXAMPLE_RUNS := output/example

.PHONY: help setup setup-axolotl system-packages demo report-example test test-versions check bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(LF)/.complete  ## make .venv: tunebook, LLaMA-Factory and the development tools

setup-axolotl: $(AXOLOTL)/.complete  ## make .venv-axolotl: tunebook and Axolotl

# The stamp is written last, so that an installation that was interrupted is taken up again.
$(LF)/.complete: pyproject.toml constraints/llamafactory.txt constraints/dev.txt | $(UV)
	@echo "$(LF): installing LLaMA-Factory with PyTorch's CUDA build, which also runs on a CPU (LLaMA-Factory"
	@echo "$(LF): does not run on the CPU-only build). About 3.5 GB to download the first time, 7 GB on disk."
	$(UV) venv --quiet --allow-existing --python '$(PYTHON)' $(LF)
	$(UV) pip install --python $(LF)/bin/python -c constraints/llamafactory.txt -c constraints/dev.txt \
		-e '.[llamafactory,dev]'
	@touch $@

$(AXOLOTL)/.complete: pyproject.toml constraints/axolotl.txt constraints/dev.txt | $(UV)
	@echo "$(AXOLOTL): installing Axolotl, which needs other versions than LLaMA-Factory. About 0.7 GB to"
	@echo "$(AXOLOTL): download after 'make setup', else 4 GB; 7 GB on disk, most of it shared with .venv."
	$(UV) venv --quiet --allow-existing --python '$(PYTHON)' $(AXOLOTL)
	$(UV) pip install --python $(AXOLOTL)/bin/python -c constraints/axolotl.txt -c constraints/dev.txt \
		-e '.[axolotl]' hypothesis pytest pytest-timeout pytest-xdist
	@touch $@

# Into a folder of its own: `pip install --target` leaves the system's Python as it is.
.tools/uv/bin/uv:
	@echo "uv is missing: installing uv $(UV_VERSION) into .tools (about 25 MB)"
	python3 -m pip install --quiet --target .tools/uv uv==$(UV_VERSION)

system-packages:  # Debian and Ubuntu only; elsewhere the tests say what they lack
	@missing=$$(for package in $(DEBIAN); do \
		dpkg -s $$package >/dev/null 2>&1 || printf '%s ' $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "not Debian: install $$missing yourself" >&2; exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "install as root: apt-get install $$missing" >&2; exit 0; fi; \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

$(TINY)/config.json: scripts/make_tiny_model.py scripts/tiny_tokenizers.py | $(LF)/.complete
	$(LF)/bin/python scripts/make_tiny_model.py --architecture qwen3 -o $(TINY)

# More threads than one only get in each other's way on a model this small: seconds become minutes.
demo: export OMP_NUM_THREADS := 1
demo: $(LF)/.complete $(TINY)/config.json  ## train a tiny model on a CPU until it has learned, and report the run
	$(LF)/bin/python scripts/prepare_demo.py
	$(LF)/bin/tunebook train llamafactory/demo/full_sft_recommend
	$(LF)/bin/tunebook report $(DEMO_RUN) -o $(DEMO_REPORT)

# Both engines on the same three demo recipes. LLaMA-Factory is asked for an evaluation before the first step,
# which Axolotl makes anyway: so that both can be held against the model before training.
report-example: export OMP_NUM_THREADS := 1
report-example: $(LF)/.complete $(AXOLOTL)/.complete $(TINY)/config.json  ## train both engines' demos on a CPU (about 10 min) and make reports/example of them
	$(LF)/bin/python scripts/prepare_demo.py
	$(LF)/bin/python scripts/prepare_demo_gsm8k.py
	rm -rf $(EXAMPLE_RUNS)
	@for recipe in full_sft_recommend full_sft_gsm8k qlora_sft_recommend; do \
		echo "== $$recipe"; name=$${recipe#full_sft_}; name=$${name%_sft_recommend}; \
		$(LF)/bin/tunebook train llamafactory/demo/$$recipe \
			output_dir=$(EXAMPLE_RUNS)/llamafactory-$$name eval_on_start=true; \
		$(LF)/bin/tunebook train axolotl/demo/$$recipe output_dir=$(EXAMPLE_RUNS)/axolotl-$$name; \
	done
	$(LF)/bin/python scripts/make_report_example.py $(EXAMPLE_RUNS)/*-recommend $(EXAMPLE_RUNS)/*-gsm8k \
		$(EXAMPLE_RUNS)/*-qlora -o reports/example

# Both parts are run, whatever the first one said; the exit status tells whether one failed. Axolotl's
# environment is given only the files with tests for it: others import what it does not have. Two workers,
# since an engine on a tiny model keeps one core busy; a file's tests share their engine runs.
test: system-packages setup setup-axolotl  ## run every test there is: both engines, browser and all
	@status=0; \
	$(AXOLOTL)/bin/python -m pytest -n 2 --dist loadfile --durations=15 -m axolotl $$(grep -rlE --include='test_*.py' 'mark\.axolotl' tests) || status=1; \
	$(LF)/bin/python -m pytest -n 2 --dist loadfile --durations=15 -m '(engine or not axolotl) and not gpu' || status=1; \
	exit $$status

test-versions: setup setup-axolotl $(TINY)/config.json  ## a short smoke on every other version of the engines (docs/versions.md)
	$(LF)/bin/python scripts/prepare_demo.py
	UV='$(UV)' OMP_NUM_THREADS=1 $(LF)/bin/python scripts/try_versions.py

check: setup  ## what must pass before every commit: format, lint, types, imports, core tests
	$(LF)/bin/ruff format --check .
	$(LF)/bin/ruff check .
	$(LF)/bin/mypy
	$(LF)/bin/lint-imports
	$(LF)/bin/python -m pytest -n 2 --dist loadfile -m 'not engine and not axolotl and not infra and not browser and not gpu' \
		--ignore=tests/engines

bench: setup $(TINY)/config.json  ## run the benchmarks; each prints a ratio against what it is compared with
	@for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(LF)/bin/python "$$benchmark"; done

clean:  ## remove what runs, tests and tools left; environments, data and reports/example stay
	rm -rf output eval_results build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find reports -mindepth 1 -maxdepth 1 ! -name example ! -name README.md -exec rm -rf {} +
	find plugins scripts tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
