# Every target works from a fresh clone: it makes .venv, builds the kernels and installs the package there first.
# PYTHON=python3.12 chooses the interpreter, ARGS="..." goes to pytest or to the benchmarks.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test sanitize cuda accesses mutate gpu-check bench lint format wheel clean

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# The kernels' object files live and die with the environment that they were built for.
INSTALL := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" NSTCORE_BUILD_DIR="$(CURDIR)/$(VENV)/native" \
           $(PIP) install --no-build-isolation --editable
BUILD_NEEDS := $(shell sed -n 's/^requires = \[\(.*\)\]$$/\1/p' pyproject.toml | tr -d ,)
NATIVE := $(shell find csrc python -type f -not -name '*.cu' -not -name '*.cuh') CMakeLists.txt setup.py pyproject.toml
# Two test processes share the machine; threads of theirs that wait must not spin.
ONE_THREAD := NSTCORE_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OMP_WAIT_POLICY=passive
CPP := $(shell find csrc python tests/cuda_on_cpu -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

help:  ## this list
	@awk -F ':.*## *' '/^[a-z-]+:.*##/ {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.built  ## paint the pictures in the package; shows where the page is
	@$(VENV)/bin/nst demo $(ARGS)

test: $(VENV)/.test  ## run all tests
	@$(ONE_THREAD) $(PY) -m pytest -q -n 2 --dist loadgroup $(ARGS)

sanitize: $(VENV)/.test  ## run the tests of the kernels under the address and undefined-behaviour sanitizers
	@sh tools/sanitize.sh $(ARGS)

cuda: $(VENV)/.test  ## compile the CUDA kernels with nvcc and hold registers and spills against their budget
	@$(PY) tools/cuda_resources.py $(ARGS)

accesses: $(VENV)/.test  ## count what the CUDA kernels' accesses take of memory; shows what has no reason
	@$(ONE_THREAD) PYTHONPATH=tests $(PY) -m cuda_on_cpu.lint $(ARGS)

mutate: $(VENV)/.test  ## change the CUDA kernels one place at a time; shows what the tests do not notice
	@$(ONE_THREAD) PYTHONPATH=tests $(PY) -m cuda_on_cpu.mutate $(ARGS)

gpu-check: $(VENV)/.test  ## on a machine with a GPU: the kernels' tests under each tool of compute-sanitizer
	@sh tools/gpu_check.sh $(PY) $(ARGS)

bench: $(VENV)/.built  ## run the benchmarks (ARGS="--profile full")
	@for file in benchmarks/*_bench.py; do $(PY) $$file $(ARGS) || exit 1; echo; done

lint: $(VENV)/.lint  ## ruff, mypy, clang-format and the size budget
	@status=0; \
	$(VENV)/bin/ruff check --quiet . || status=1; \
	$(VENV)/bin/ruff format --quiet --check . || status=1; \
	$(PY) -m mypy --no-error-summary || status=1; \
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP) || status=1; \
	$(PY) tools/size_budget.py || status=1; \
	exit $$status

format: $(VENV)/.lint  ## rewrite the files as ruff and clang-format want them
	@$(VENV)/bin/ruff check --quiet --fix .; $(VENV)/bin/ruff format --quiet .
	@$(VENV)/bin/clang-format -i $(CPP)

wheel: $(VENV)/.built  ## build the sdist, and from it the wheel, into dist/
	@rm -rf dist && $(PY) -c "from setuptools import build_meta; build_meta.build_sdist('dist')" >/dev/null
	@$(PIP) wheel --no-deps --wheel-dir dist dist/*.tar.gz
	@ls dist/*

clean:  ## remove what the other targets made
	@rm -rf $(VENV) build dist nstcore.egg-info nstcore/_native*.so .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find nstcore tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@sh tools/venv.sh

$(VENV)/.built: $(NATIVE) | $(VENV)/bin/python
	@echo "installing nstcore and building its kernels (a minute the first time)"
	@$(PIP) install $(BUILD_NEEDS)
	@$(INSTALL) .
	@touch $@

$(VENV)/.test $(VENV)/.lint: $(VENV)/.%: pyproject.toml | $(VENV)/.built
	@echo "installing what make $* needs"
	@$(INSTALL) ".[$*]"
	@touch $@
