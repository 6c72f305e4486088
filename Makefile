# Two commands for a fresh machine with Python 3.11: `make demo` and `make test`. Each makes .venv first.
PYTHON ?= python3.11
BIN := .venv/bin
# torch goes first, at its pin: everything else is then resolved against it.
TORCH := $(shell grep -E '^torch==' constraints.txt)

.PHONY: demo test lint pytest bench docs notebooks fuzz clean
demo: .venv/ready
	$(BIN)/qcascade demo

test: .venv/ready
	@# mypy takes one core for a minute: beside the tests
	@$(MAKE) --no-print-directory -j2 lint pytest

pytest: .venv/ready
	@# a file stays with one worker, so that what its tests share is made once
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/bench
	$(BIN)/python tests/benchmarks/cost_models.py
	$(BIN)/python tests/benchmarks/plan_speed.py --plot plan_speed.png
	$(BIN)/python tests/benchmarks/html_report.py
	$(BIN)/python tests/benchmarks/training_step.py
	$(BIN)/python tests/benchmarks/engine.py
	$(BIN)/python tests/benchmarks/engine.py --scaling --plot scaling.png
	$(BIN)/python tests/benchmarks/fidelity.py
	$(BIN)/python tests/benchmarks/executors.py
	$(BIN)/python tests/benchmarks/routing.py
	$(BIN)/python tests/zoo
	$(BIN)/python tests/benchmarks/bundle.py
	$(BIN)/python tests/benchmarks/wire.py
	$(BIN)/python tests/benchmarks/dispatch.py
	$(BIN)/python tests/benchmarks/cluster.py
	$(BIN)/python tests/benchmarks/faults.py
	$(BIN)/python tests/benchmarks/fault_tolerant.py

docs: .venv/docs
	$(BIN)/python docs/figures --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Runs the notebooks and keeps what they print.
notebooks: .venv/ready
	for notebook in notebooks/*.ipynb; do $(BIN)/jupyter execute --inplace $$notebook || exit 1; done

.venv/docs: .venv/ready
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,docs]'
	touch $@

.venv/bench: .venv/ready
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,bench]'
	touch $@

.venv/ready: pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/pip install -q --no-compile $(TORCH)
	$(BIN)/pip install -q --no-compile -c constraints.txt -e '.[dev]'
	@# pip would do this on one core; it matters little that packages hold templates that are no Python
	-$(BIN)/python -m compileall -qq -j 0 .venv/lib
	touch $@

# A hundred thousand mutated bundles; FIRST=N goes on from case N.
FIRST ?= 0
fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz_bundle.py --exported --first $(FIRST) --count $$((100000 - $(FIRST)))

clean:
	rm -rf .venv build site *.egg-info
