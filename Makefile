# make demo   map a real place with what comes with regard (installs first)
# make test   every test            make check   lint, types, import contracts and the fast tests
# make gpu    what needs a GPU, in less than ten minutes, into runs/gpu; see docs/performance.md (installs nothing but .wheels)
# make study  the key figure of docs/study.md, one seed, into runs/study (minutes)
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
GPU_OUT ?= runs/gpu
GPU_PYTHON ?= 3.12
GPU_PACKAGES ?= affine annotated-types antimeridian pydantic pydantic-core pyproj rasterio shapely typing-inspection
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench gpu gpu-wheels study docs clean

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

# With a Python that has PyTorch, on a machine that may have no network: what else it lacks comes as wheels.
gpu:
	if ls .wheels/*.whl >/dev/null 2>&1; then $(PYTHON) -m pip install -q --no-index --no-deps --no-compile --upgrade --target build/gpu .wheels/*.whl; fi
	PYTHONPATH=src:build/gpu $(PYTHON) -m benchmarks gpu -o $(GPU_OUT)

gpu-wheels:
	$(PYTHON) -m pip download -q -c constraints.txt --no-deps --only-binary=:all: --python-version $(GPU_PYTHON) --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .wheels $(GPU_PACKAGES)

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
