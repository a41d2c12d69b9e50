# Everything runs from .venv, which the first target that needs it installs.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-all check lint types docs site wheel wheels test-arm bench train dev clean help

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

dev: .venv/installed .venv/kernels  ## install everything into .venv
.venv/installed: pyproject.toml setup.py constraints.txt
	@echo "Installing onnx-shift and what it needs into .venv (several minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q onnx_shift exporter models onnx_pruner portfolio runtime serving  # as pip does with what it copies
	@touch $@ .venv/kernels
	@echo "Installed: $$($(BIN)/onnx-shift --version)"
.venv/kernels: .venv/installed $(wildcard runtime/kernels/*.[ch] runtime/kernels/build.py)
	@$(BIN)/python runtime/kernels/build.py || echo "The sparse kernels are not built; everything else goes on"
	@touch $@

demo: dev  ## train, export, prune, profile, pack and switch, on real data, in minutes
	$(BIN)/onnx-shift demo -o demo

test: dev  ## the tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-all: dev  ## the tests, the long ones included
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[wheels]'
	@.ci/emulator || true
	$(BIN)/python -m pytest

test-arm: wheels  ## the wheel for 64-bit Arm and the kernels' tests, under emulation
	.ci/arm

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: dev  # mypy does not see an editable install through its folder mapping: a folder of links shows it the layout
	@rm -rf .dev && mkdir -p .dev/onnx_shift
	@for part in exporter models onnx_pruner portfolio runtime serving; do ln -s ../../$$part .dev/onnx_shift/$$part; done
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

train: dev  ## the trainings on CIFAR-10 that benchmarks are made of, hours; what benchmarks/data keeps needs none
	$(BIN)/python -m benchmarks train

wheels: dev  ## wheels for 64-bit Linux on x86 and on Arm into dist/, their kernels cross-compiled for glibc 2.17
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[wheels]'
	@for machine in x86_64 aarch64; do \
		rm -f dist/onnx_shift-*_$$machine.whl; \
		CC="$(CURDIR)/$(BIN)/python -m ziglang cc -target $$machine-linux-gnu.2.17 -s" $(BIN)/python -m build --wheel \
			-C--build-option=--plat-name=manylinux_2_17_$$machine . >/dev/null || exit 1; \
		$(BIN)/auditwheel show dist/onnx_shift-*_$$machine.whl | tee /dev/stderr | grep -q '"manylinux_2_17_' || exit 1; \
	done

clean:  ## remove what was built, .venv included
	rm -rf .venv .dev build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
