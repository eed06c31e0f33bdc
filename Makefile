# Every target sets up what it needs: a virtual environment in .venv and the packages in it.
#
#   make demo    segment a real micrograph and a generated slide on the CPU, no torch involved
#   make test    ruff, mypy and the whole test suite
#   make bench   the benchmarks, written to benchmarks/results/
#   make clean   remove builds, the virtual environment and the demo's results

PYTHON ?= python3
VENV ?= .venv
DEMO ?= cellseg_out/demo
SIZE ?= 4096x4096

BIN := $(VENV)/bin
KERNELS := $(wildcard csrc/*.pyx csrc/*.pxd csrc/*.h)
PACKAGING := setup.py pyproject.toml constraints.txt $(KERNELS)

.PHONY: demo test lint types unit bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cellseg needs Python 3.11 or newer, found " + sys.version.split()[0] + "; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The base package, as a user installs it. Reinstalled when a kernel or the packaging changes.
$(VENV)/base.stamp: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# Everything for development. It includes the base, so both stamps are set.
$(VENV)/dev.stamp: $(PACKAGING) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/base.stamp

# scikit-image's wheel carries a stained-tissue micrograph; only that one file is taken from it.
$(VENV)/demo/ihc.png: | $(BIN)/python
	@mkdir -p $(@D)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary :all: --dest $(@D) scikit-image
	$(BIN)/python -c 'import glob, zipfile; \
	  data = zipfile.ZipFile(glob.glob("$(@D)/scikit_image-*.whl")[-1]).read("skimage/data/ihc.png"); \
	  open("$@", "wb").write(data)'
	@rm -f $(@D)/scikit_image-*.whl

$(VENV)/demo/slide.tif: benchmarks/slides.py | $(VENV)/base.stamp
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
	$(BIN)/python -m pytest

test: lint types unit

# MONAI without what it would bring: PyTorch and NumPy are there already.
bench: $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --no-deps monai
	$(BIN)/python benchmarks/kernels.py --json benchmarks/results/kernels.json
	$(BIN)/python benchmarks/end_to_end.py --size 8192 --json benchmarks/results/end_to_end.json
	$(BIN)/python benchmarks/end_to_end.py --size 40000x10000 --size 40000x20000 --size 40000 --null-engine \
	  --json benchmarks/results/sweep.json
	$(BIN)/python benchmarks/peers.py --json benchmarks/results/peers.json
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf $(VENV) build *.egg-info $(DEMO) .pytest_cache .mypy_cache .ruff_cache
