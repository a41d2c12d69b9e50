# Everything runs from .venv, which the first target that needs it installs.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-all check lint types docs site wheel bench dev clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

dev: .venv/installed  ## install everything into .venv
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing onnx-shift and what it needs into .venv (several minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q onnx_shift exporter models onnx_pruner portfolio runtime  # as pip does with what it copies
	@touch $@
	@echo "Installed: $$($(BIN)/onnx-shift --version)"

demo: dev  ## train, export, prune, profile, pack and switch, on real data, in minutes
	$(BIN)/onnx-shift demo -o demo

test: dev  ## the tests
	$(BIN)/python -m pytest -m "not slow"

test-all: dev  ## the tests, the long ones included
	$(BIN)/python -m pytest

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev  # mypy does not see an editable install through its folder mapping: a folder of links shows it the layout
	@rm -rf .dev && mkdir -p .dev/onnx_shift
	@for part in exporter models onnx_pruner portfolio runtime; do ln -s ../../$$part .dev/onnx_shift/$$part; done
	@for file in onnx_shift/*; do ln -s ../../$$file .dev/onnx_shift/$$(basename $$file); done
	$(BIN)/mypy

docs: dev  ## write docs/commands.md from the commands' own help
	$(BIN)/typer onnx_shift.cli utils docs --name onnx-shift --output docs/commands.md

site: dev  ## the documentation as a web site, in site/, with an API reference from the docstrings
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[site]'
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --clean --strict

wheel: dev  ## the wheel for this Python and machine, in dist/
	$(BIN)/python -m build --wheel --outdir dist .

check: lint types test  ## lint, types and tests: what .ci/run calls

bench: dev  ## every figure of docs/results, measured on this machine; resumes an interrupted run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:  ## remove what was built, .venv included
	rm -rf .venv .dev build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
