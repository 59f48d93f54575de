# make quickstart   trains a tensor-train adapter in a frozen T5 and shows the result
# make test         runs the whole test suite
# make test-lowest  runs the fast tests with the lowest versions that setup.py allows
# make test-newest  runs them with the newest
# make docs         builds the documentation as a site, with an API reference from the docstrings
# Each creates its environment on first use: .venv, or .venv-lowest and .venv-newest.

PYTHON ?= python3
VENV := .venv
PIP = $(@D)/bin/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' requirements.lock)
CPU_BUILDS := https://download.pytorch.org/whl/cpu

# Threads that wait for each other sleep instead of spinning: on a machine with other work that is several times as fast.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: quickstart test test-fast test-lowest test-newest docs lint clean

quickstart: $(VENV)/complete
	$(VENV)/bin/python run_seq2seq.py configs/quickstart.json

# A process for each core, up to four, with one thread each; a file's tests stay in one process, and the files keep the
# order of tests/conftest.py.
PYTEST = OMP_NUM_THREADS=1 $(<D)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/complete
	$(PYTEST)

test-fast: $(VENV)/complete
	$(PYTEST) -m "not slow"

test-lowest test-newest: test-%: $(VENV)-%/complete
	$(PYTEST) -m "not slow"

docs: $(VENV)/complete
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "The documentation is in build/site/index.html."

lint: $(VENV)/complete
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest

# On Linux without an NVIDIA GPU the CPU build of torch is taken, from where pip is set up to look or else from PyTorch's
# own index: the registry's plain build would bring gigabytes of CUDA libraries.
define CREATE
@echo "Creating $(@D), once; this takes a few minutes."
$(PYTHON) -m venv $(@D)
@if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then \
	$(PIP) install -q --no-deps "$(TORCH)+cpu" || \
	$(PIP) install -q --no-deps "$(TORCH)+cpu" --index-url $(CPU_BUILDS); \
fi
endef

$(VENV)/complete: requirements.lock setup.py
	$(CREATE)
	$(PIP) install -q -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

# torch is the pinned version in both: its own lowest version is not verified.
$(VENV)-lowest/complete: RESOLUTION := lowest-direct
$(VENV)-newest/complete: RESOLUTION := highest
$(VENV)-lowest/complete $(VENV)-newest/complete: requirements.lock setup.py
	$(CREATE)
	$(PIP) install -q uv
	$(@D)/bin/uv pip install -q --compile-bytecode --python $(@D) --resolution $(RESOLUTION) "$(TORCH)" -e ".[develop]"
	@touch $@
