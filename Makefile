# make demo   map a real place with what comes with regard (installs first)
# make test   every test            make check   lint, types, import contracts and the fast tests
# make study  the key figure of docs/study.md, one seed, into runs/study (minutes)
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench study docs clean

demo: $(READY)
	$(BIN)/regard demo --out $(OUT)

test: $(READY)
	$(BIN)/python -m pytest -m "not gpu" -n auto --maxprocesses 8
	$(BIN)/lint-imports

check: $(READY)
	$(BIN)/ruff format --check src tests benchmarks examples experiments
	$(BIN)/ruff check src tests benchmarks examples experiments
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not gpu" -n auto --maxprocesses 8

bench: $(READY)
	$(BIN)/python -m benchmarks attention upsample evaluate model

study: $(READY)
	$(BIN)/python -m experiments.fusion.run --arms short --seeds 0 --out runs/study
	$(BIN)/python -m experiments.fusion.plot --only key --records runs/study --out runs/study

docs: $(READY)
	$(BIN)/pip install -q -c constraints.txt mkdocs-material "mkdocstrings[python]"
	$(BIN)/python -c 'import sys; sys.argv = ["regard"]; from regard.cli import app; print(app.generate_docs(), end="")' > docs/cli.md
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('regard needs Python 3.11 or newer; got ' + sys.version.split()[0] + '. Set PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(READY)
