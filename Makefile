# Every target sets up what it needs: a virtual environment in .venv and the packages in it, pinned by hash.
#
#   make demo         segment a real micrograph and a generated slide on the CPU, no torch involved
#   make test         ruff, mypy and the whole test suite
#   make test-extras  SpatialData and the plugin in a real napari, in an environment of its own
#   make docs         the documentation as a site in docs/_build/html, every warning an error
#   make docs-serve   the same, shown at http://127.0.0.1:8000
#   make bench        the benchmarks, written to benchmarks/results/
#   make wheel        wheel, source archive and bill of materials in dist/, tried in a clean environment
#   make test-wheel   the wheel with the newest dependencies, in each Python of PYTHONS
#   make test-oldest  the wheel with the oldest dependencies that are declared, and a part of the tests
#   make lock         resolve the pins again after a change in pyproject.toml (LOCK=--upgrade: all of them)
#   make clean        remove builds, the virtual environment and the demo's results

PYTHON ?= python3
PYTHONS ?= python3.11 python3.12 python3.13
VENV ?= .venv
DEMO ?= cellseg_out/demo
SIZE ?= 4096x4096

BIN := $(VENV)/bin
TOOLS := $(VENV)/tools
EXTRAS := $(VENV)/extras
PIP := $(BIN)/python -m pip install --quiet
HASHED := --require-hashes --no-deps
KERNELS := $(wildcard csrc/*.pyx csrc/*.pxd csrc/*.h)
PACKAGING := setup.py pyproject.toml constraints.txt $(wildcard requirements/*.txt) $(KERNELS)

.PHONY: demo test test-extras lint types unit docs docs-serve bench wheel test-wheel test-oldest lock clean
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cellseg needs Python 3.11 or newer, found " + sys.version.split()[0] + "; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# The base package, as a user installs it. Reinstalled when a kernel or the packaging changes.
$(VENV)/base.stamp: $(PACKAGING) | $(BIN)/python
	$(PIP) $(HASHED) --requirement requirements/base.txt --requirement requirements/build.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# Everything for development. It includes the base, so both stamps are set. PyTorch has no hash that holds
# everywhere (requirements/lock.py says why), so its version is pinned alone.
$(VENV)/dev.stamp: $(PACKAGING) | $(BIN)/python
	$(PIP) $(HASHED) --requirement requirements/dev.txt
	$(PIP) --constraint constraints.txt torch
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/base.stamp

# What a release takes, apart from what is released.
$(TOOLS)/stamp: requirements/release.txt | $(BIN)/python
	$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet $(HASHED) --requirement $<
	@touch $@

# scikit-image's wheel carries a stained-tissue micrograph; only that one file is taken from it.
$(VENV)/demo/ihc.png: | $(BIN)/python
	@mkdir -p $(@D)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(@D) scikit-image
	$(BIN)/python -c 'import glob, zipfile; \
	  data = zipfile.ZipFile(glob.glob("$(@D)/scikit_image-*.whl")[-1]).read("skimage/data/ihc.png"); \
	  open("$@", "wb").write(data)'
	@rm -f $(@D)/scikit_image-*.whl

$(VENV)/demo/slide.tif: $(addprefix benchmarks/,slides.py slide_canvas.py nuclei_placing.py) | $(VENV)/base.stamp
	@mkdir -p $(@D)
	$(BIN)/python benchmarks/slides.py --kind fluorescence --size $(SIZE) --seed 1 $@

demo: $(VENV)/base.stamp $(VENV)/demo/ihc.png $(VENV)/demo/slide.tif
	$(BIN)/cellseg-infer $(VENV)/demo/ihc.png $(VENV)/demo/slide.tif --output $(DEMO) --overwrite

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy
	@# Scripts that no test runs: do they still call the package as it is? Not strict: what they measure is untyped.
	MYPYPATH=.typing:benchmarks $(BIN)/mypy --config-file= --ignore-missing-imports --follow-imports=silent \
		--explicit-package-bases --namespace-packages benchmarks/*.py benchmarks/gpu/*.py

unit: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test: lint types unit

# Half a gigabyte with a window system, which runs in a virtual screen (xvfb) where there is none to see. Warnings
# are none of ours there: these libraries bring their own.
$(EXTRAS)/stamp: requirements/extras.txt requirements/build.txt $(PACKAGING) | $(VENV)/base.stamp
	$(BIN)/python -m venv $(EXTRAS)
	$(EXTRAS)/bin/python -m pip install --quiet $(HASHED) --requirement requirements/extras.txt --requirement requirements/build.txt
	$(EXTRAS)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

test-extras: $(EXTRAS)/stamp
	$(if $(DISPLAY)$(filter-out Linux,$(shell uname)),,xvfb-run --auto-servernum) $(EXTRAS)/bin/python -m pytest -q -W ignore \
	  --confcutdir tests/runtime/plugin -p no:cacheprovider tests/runtime/plugin tests/runtime/results/test_spatial.py tests/runtime/results/test_tables.py

docs: $(VENV)/dev.stamp
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "docs/_build/html/index.html"

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build/html 8000

# How to link, without the place where this machine keeps its Python: it is nobody's affair who gets the wheel.
LINK := import sysconfig; \
  print(*[word for word in (sysconfig.get_config_var('LDSHARED') or '').split() if 'rpath' not in word and word[:2] != '-L'])

# The wheel is built from the source archive, so that the archive is known to hold what it must. Elsewhere than
# on Linux nothing is to be repaired. Installed into a clean environment it must segment without a compiler, and
# the bill of materials lists what that environment holds and what the wheel carries.
wheel: $(TOOLS)/stamp
	rm -rf dist build/wheel $(TOOLS)/clean
	LDSHARED="$$($(TOOLS)/bin/python -c "$(LINK)")" $(TOOLS)/bin/python -m build --no-isolation --outdir build/wheel .
	@mkdir -p dist && cp build/wheel/*.tar.gz dist/
	if [ "$$(uname)" = Linux ]; then PATH="$(abspath $(TOOLS))/bin:$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl; \
	  else cp build/wheel/*.whl dist/; fi
	$(BIN)/python -m venv $(TOOLS)/clean
	$(TOOLS)/clean/bin/python -m pip install --quiet $(HASHED) --requirement requirements/base.txt
	$(TOOLS)/clean/bin/python -m pip install --quiet --no-deps --no-index dist/*.whl
	CC=no-compiler $(TOOLS)/clean/bin/python -I .ci/smoke.py
	$(TOOLS)/clean/bin/python -m pip uninstall --quiet --yes setuptools pip
	cd dist && $(abspath $(TOOLS))/bin/cyclonedx-py environment --pyproject ../pyproject.toml --mc-type library \
	  --output-reproducible --output-file "$$(basename *.tar.gz .tar.gz).cdx.json" $(abspath $(TOOLS))/clean/bin/python
	$(TOOLS)/bin/python .ci/bundled.py dist/*.cdx.json
	@ls -l dist

# Both install from the index, apart from the locks: that is what a user gets.
test-wheel: $(TOOLS)/stamp
	@ls dist/*.whl >/dev/null || { echo "there is no wheel in dist/; call make wheel first"; exit 1; }
	for python in $(PYTHONS); do rm -rf $(TOOLS)/newest && $$python -m venv $(TOOLS)/newest && \
	  $(TOOLS)/newest/bin/python -m pip install --quiet dist/*.whl && $(TOOLS)/newest/bin/python -I .ci/smoke.py || exit 1; done

test-oldest: $(TOOLS)/stamp
	@ls dist/*.whl >/dev/null || { echo "there is no wheel in dist/; call make wheel first"; exit 1; }
	rm -rf $(TOOLS)/oldest && $(BIN)/python -m venv $(TOOLS)/oldest
	$(TOOLS)/bin/python -m uv pip install --quiet --python $(TOOLS)/oldest --resolution lowest-direct --requirement pyproject.toml
	$(TOOLS)/bin/python -m uv pip install --quiet --python $(TOOLS)/oldest --no-deps dist/*.whl
	$(TOOLS)/oldest/bin/python -I .ci/smoke.py
	$(TOOLS)/bin/python -m uv pip install --quiet --python $(TOOLS)/oldest \
	  google-crc32c hypothesis onnx packaging pytest scikit-image shapely
	$(TOOLS)/oldest/bin/python -m pytest -q -m 'not slow' -W default -p no:cacheprovider \
	  tests/runtime/model tests/runtime/readers tests/runtime/results tests/runtime/writers

lock: $(TOOLS)/stamp
	$(TOOLS)/bin/python requirements/lock.py $(LOCK)

# MONAI without what it would bring: PyTorch and NumPy are there already.
bench: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --no-deps monai
	$(BIN)/python benchmarks/kernels.py --json benchmarks/results/kernels.json
	$(BIN)/python benchmarks/end_to_end.py --size 8192 --json benchmarks/results/end_to_end.json
	$(BIN)/python benchmarks/end_to_end.py --size 40000x10000 --size 40000x20000 --size 40000 --null-engine \
	  --json benchmarks/results/sweep.json
	$(BIN)/python benchmarks/peers.py --json benchmarks/results/peers.json
	$(BIN)/python benchmarks/cluster.py --real --simulate 114 --json benchmarks/results/cluster.json \
	  --plot docs/_static/cluster.svg
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info $(DEMO) .pytest_cache .mypy_cache .ruff_cache
