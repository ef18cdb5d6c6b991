# make demo   map a real place with what comes with regard (installs first)
# make test   every test but those of make nightly            make check   lint, types, import contracts and the fast tests
# make gpu    what needs a GPU, in less than ten minutes, into runs/gpu; see docs/performance.md (installs nothing but .wheels)
# make study  the key comparison of docs/study.md in short form: one seed, 200 steps, into runs/study (minutes)
# make test-oldest   the fast tests with the oldest versions that pyproject.toml allows; PINS= make check   with the newest
# make wheels sbom audit workflows   wheels that are the same twice, what a demo installs and what is known against it; see docs/reliability.md
PYTHON ?= python3
VENV ?= .venv
PINS ?= -c constraints.txt
LOCK := .ci/demo-linux-x86_64-py311.txt
OUT ?= demo
GPU_OUT ?= runs/gpu
GPU_PYTHON ?= 3.12
GPU_PACKAGES ?= affine annotated-types antimeridian pydantic pydantic-core pyproj rasterio shapely typing-inspection
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .venv-tools/bin
OLDEST := .venv-oldest/bin
LOCKED := .venv-locked/bin

# The viewer's map library again, with npm; then the viewer's own modules, which need no build, linted and typed.
viewer:
	cd viewer && npm install --no-package-lock --no-audit --no-fund && npm run build && npm run check

# The viewer's modules alone, linted (Biome) and with their JSDoc types checked (tsc); no script of a package is run.
viewer-check:
	@if ! command -v npm >/dev/null; then echo "The viewer's modules are not checked: npm is not installed."; \
	elif ! (cd viewer && npm install --no-package-lock --no-audit --no-fund --ignore-scripts --silent); then \
		echo "The viewer's modules are not checked: npm could not install Biome and TypeScript."; \
	else cd viewer && npm run --silent check; fi

.PHONY: demo demo-locked viewer viewer-check test check coverage nightly test-oldest bench gpu gpu-wheels study docs lock wheels sbom audit workflows clean

demo: $(READY)
	$(BIN)/regard demo --out $(OUT)

# The demo in an environment whose every file has a known hash (Linux on x86-64, Python 3.11).
demo-locked: $(LOCKED)/.ready
	$(LOCKED)/regard demo --out $(OUT)

$(LOCKED)/.ready: $(LOCK) pyproject.toml
	$(PYTHON) -m venv .venv-locked
	$(LOCKED)/python -m pip install -q --require-hashes -r $(LOCK)
	$(LOCKED)/python -m pip install -q --no-deps --no-build-isolation .
	touch $@

test: $(READY)
	$(BIN)/python -m pytest -m "not gpu and not nightly" -n auto --maxprocesses 8
	$(BIN)/lint-imports

# Hours: the tests that take minutes, 10,000 odd inputs a format, every write of every command failed, every mutant.
nightly: $(READY)
	$(BIN)/python -m pytest -m nightly
	$(BIN)/python -m tests.fuzz --count 10000 --save fuzz.md
	$(BIN)/python -m tests.faults.writes
	$(BIN)/python -m tests.mutants --slow

# Lines and branches that the tests reach, by subpackage.
coverage: $(READY)
	$(BIN)/python -m pip install -q coverage
	$(BIN)/python -m coverage erase
	-$(BIN)/python -m coverage run -m pytest -q -m "not gpu and not nightly"
	$(BIN)/python -m coverage combine -q
	$(BIN)/python tests/house/coverage_by_room.py

check: $(READY) viewer-check
	$(BIN)/ruff format --check src tests benchmarks examples experiments
	$(BIN)/ruff check src tests benchmarks examples experiments
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not gpu and not nightly" -n auto --maxprocesses 8

# An old version warns of what newer ones around it deprecate: here, warnings are no errors.
test-oldest: $(TOOLS)/uv
	test -x $(OLDEST)/python || $(PYTHON) -m venv .venv-oldest
	$(TOOLS)/uv pip install -q --python $(OLDEST)/python --resolution lowest-direct -e ".[dev]"
	$(OLDEST)/python -m pytest -m "not slow and not gpu and not nightly" -o filterwarnings=default -n auto --maxprocesses 8

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
	$(BIN)/python -m experiments.fusion.run ../shared/data --short --out runs/study
	$(BIN)/python -m experiments.fusion.table --records runs/study/records

docs: $(READY)
	$(BIN)/pip install -q -c constraints.txt mkdocs-material "mkdocstrings[python]"
	$(BIN)/python -c 'import sys; sys.argv = ["regard"]; from regard.cli import app; print(app.generate_docs(), end="")' > docs/cli.md
	$(BIN)/mkdocs build --strict

# Supply chain: uv, pip-audit, ... in an environment of their own, with the indexes of the user's own configuration.
$(TOOLS)/%:
	test -x $(TOOLS)/python || $(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip install -q build cyclonedx-bom pip-audit pip-licenses uv zizmor

lock: $(TOOLS)/uv
	echo hatchling | $(TOOLS)/uv pip compile -q pyproject.toml - -c constraints.txt --generate-hashes --no-header --no-annotate \
		--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-build -o $(LOCK)

# Both of the commit, not of the folder as it is; the second with other rights. The time in the archives is that of the commit.
wheels: $(TOOLS)/pyproject-build
	rm -rf dist build/once build/again
	git clone -q . build/once && git clone -q . build/again
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(TOOLS)/python -m build -o dist build/once
	umask 077; SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(TOOLS)/python -m build -o build/again/dist build/again
	for file in dist/*; do cmp $$file build/again/$$file || exit 1; done
	sha256sum dist/*

sbom: $(TOOLS)/cyclonedx-py $(LOCKED)/.ready
	mkdir -p build
	$(TOOLS)/cyclonedx-py environment $(LOCKED)/python --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json

audit: $(TOOLS)/pip-audit $(LOCKED)/.ready
	mkdir -p build/audit
	$(TOOLS)/pip-licenses --python $(LOCKED)/python --from mixed --order license --format markdown --output-file build/audit/licences.md \
		--partial-match --fail-on "AGPL;GNU Affero"
	$(TOOLS)/pip-audit -r $(LOCK) --disable-pip --require-hashes --format markdown -o build/audit/vulnerabilities.md

workflows: $(TOOLS)/zizmor
	$(TOOLS)/zizmor --offline .github

clean:
	rm -rf $(VENV) .venv-tools .venv-oldest .venv-locked build dist site demo .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('regard needs Python 3.11 or newer; got ' + sys.version.split()[0] + '. Set PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q $(PINS) -e ".[dev]"
	touch $(READY)
