# make quickstart   trains a tensor-train adapter in a frozen T5 and shows the result
# make test         runs the whole test suite
# Both create the environment in .venv on first use.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' requirements.lock)
CPU_BUILDS := https://download.pytorch.org/whl/cpu

# Threads that wait for each other sleep instead of spinning: on a machine with other work that is several times as fast.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: quickstart test test-fast lint clean

quickstart: $(VENV)/complete
	$(VENV)/bin/python run_seq2seq.py configs/quickstart.json

# A process for each core, up to four, with one thread each; a file's tests stay in one process.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n logical --maxprocesses 4 --dist loadfile

test: $(VENV)/complete
	$(PYTEST)

test-fast: $(VENV)/complete
	$(PYTEST) -m "not slow"

lint: $(VENV)/complete
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV)

# On Linux without an NVIDIA GPU the CPU build of torch is taken, from where pip is set up to look or else from PyTorch's
# own index: the registry's plain build would bring gigabytes of CUDA libraries.
$(VENV)/complete: requirements.lock setup.py
	@echo "Creating $(VENV), once; this takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1; then \
		$(PIP) install -q --no-deps "$(TORCH)+cpu" || \
		$(PIP) install -q --no-deps "$(TORCH)+cpu" --index-url $(CPU_BUILDS); \
	fi
	$(PIP) install -q -r requirements.lock
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@
