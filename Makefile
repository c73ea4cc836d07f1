# make demo: hear the engine. make test: check it. Both set up all they need in .venv, and reuse what is there.
# 3.11 and not 3.10: ONNX Runtime has no wheel for 3.10 that runs the graphs' operators (opset 24, from 1.25 on).
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p $(NEW_ENOUGH) 2>/dev/null && echo $$p && break; done)
WORKERS ?= 4

VENV := .venv
PY := $(VENV)/bin/python
DEMO := examples/model/omni2 --decoder examples/model/decoder --voice examples/voice.wav --precision balanced -o build/demo/engine
SOURCES := pyproject.toml setup.py training/pyproject.toml $(wildcard cpp/*.h cpp/*.cpp cpp/*/*.h cpp/*/*.cpp kernels/omni2_kernels/cuda/*.cuh)

.DEFAULT_GOAL := help
.PHONY: help demo serve train-demo test test-clients test-ray test-gpu test-gpu-kernels gpu-audit lint sanitize docs clean

help:
	@echo "make demo      build a small engine, answer a spoken question: answer.wav, answer.png; QUESTION=my.wav for your own"
	@echo "make serve     talk to that engine: a server for clients of OpenAI's Realtime interface, and its address"
	@echo "make test      lint, type checks and all tests (installs the CPU build of torch)"
	@echo "make test-clients  talk to a server with four clients from PyPI and npm, and with the page in browsers (into build/clients)"
	@echo "make test-ray  two replicas under Ray Serve on this machine (installs Ray into .venv)"
	@echo "make test-gpu  the checks for a machine with an NVIDIA GPU, on that GPU (docs/gpu.md)"
	@echo "make test-gpu-kernels  kernels, device layer and decode loop alone: any NVIDIA GPU, a driver and small wheels"
	@echo "make gpu-audit  what ONNX Runtime's CUDA provider does with the graphs, on a stub driver (fetches 260 MB)"
	@echo "make lint      lint and type checks alone (.pre-commit-config.yaml)"
	@echo "make sanitize  the C++ tests under the thread, address and undefined-behaviour sanitizers"
	@echo "make docs      the documentation as a site, in build/site"
	@echo "make train-demo  train the demonstration model anew: thirteen hours of one core, two at a time; goes on when repeated"
	@echo "make clean     remove .venv and everything built"
	@echo "PYTHON=...     the Python (3.11 or newer) that .venv is made of; now: $(PYTHON)"

demo: $(VENV)/demo.stamp
	@$(PY) -m omni2_bench.demo $(if $(QUESTION),"$(QUESTION)")

serve: $(VENV)/serve.stamp
	@$(VENV)/bin/omni2-engine build $(DEMO)
	@$(VENV)/bin/omni2-engine serve build/demo/engine $(SERVE)

# Needs npm, flite and espeak-ng; TRAIN_STATE keeps everything between runs, at most two processes of lowest priority.
TRAIN_STATE ?= build/train-demo
train-demo: $(VENV)/train.stamp
	$(PY) -m omni2_training all --state $(TRAIN_STATE)

# Without the tests of Ray, which start two replicas and want the machine for themselves: `make test-ray`.
test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart 0 --ignore tests/ray

# Into build/clients. What cannot be had here, for lack of npm, a browser or the network, is skipped and said.
test-clients: $(VENV)/dev.stamp
	@$(PY) tools/install_clients.py $(PYTHON)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --max-worker-restart 0 --clients tests/clients tests/page

test-ray: $(VENV)/dev.stamp
	$(PY) -m pip install -q "ray[serve]>=2.60"
	$(PY) -m pytest -q tests/ray

# -s: every check prints what it found, and the benchmark its table. BUDGET=540: what is lent for ten minutes.
test-gpu: $(VENV)/dev.stamp
	$(PY) -m pytest -q -s tests/gpu --gpu $(if $(BUDGET),--budget $(BUDGET))

# Needs a driver and wheels of less than 60 MB each: NVRTC, CUDA's runtime and bindings, NumPy; compiles the C++ extension.
KERNEL_CHECKS := cuda-bindings cuda-pathfinder nvidia-cuda-nvrtc nvidia-cuda-runtime numpy pydantic pybind11 "setuptools>=77"
test-gpu-kernels: $(VENV)/venv.stamp
	@$(PY) -c "import omni2_engine._core, cuda.bindings.nvrtc" 2>/dev/null || { \
		$(PY) -m pip install -q $(KERNEL_CHECKS) && $(PY) -m pip install -q --no-build-isolation --no-deps -e .; }
	$(PY) -m tests.gpu.alone

# The CUDA provider itself on a stub driver (tests/cuda_provider). In a folder of its own: beside onnxruntime each would
# overwrite the other's files.
gpu-audit: $(VENV)/dev.stamp
	$(PY) -m pip install -q --no-deps --upgrade --target build/gpu-audit onnxruntime-gpu==1.31.1 nvidia-cuda-crt
	$(PY) -m pytest -q tests/cuda_provider

lint: $(VENV)/dev.stamp
	$(PY) -m pre_commit run --all-files
	$(PY) -m mypy --platform darwin --cache-dir .mypy_cache/darwin  # calls that other systems lack
	$(PY) -m mypy --platform win32 --cache-dir .mypy_cache/win32

# A data race or a misuse of memory ends the run.
sanitize:
	$(MAKE) -C tests/cpp check SANITIZE=thread
	$(MAKE) -C tests/cpp check SANITIZE=address,undefined

docs: $(VENV)/dev.stamp
	$(PY) -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info training/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f engine/omni2_engine/_core*.so answer.wav answer.png
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/venv.stamp:
	@$(or $(PYTHON),false) $(NEW_ENOUGH) || \
		{ echo "No Python 3.11 or newer here: install one, or name it with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

# An editable install builds the C++ extension; it is repeated when the sources or the dependencies change.
$(VENV)/demo.stamp: $(VENV)/venv.stamp $(SOURCES)
	@echo "Installing what the demo needs into $(VENV) (100 MB to fetch, 400 MB on the disk) and compiling the C++ extension."
	@echo "This takes two or three minutes on two processors, and is done once."
	@$(PY) tools/install.py -e '.[bench]'
	@touch $@

$(VENV)/serve.stamp: $(VENV)/demo.stamp
	@$(PY) tools/install.py -e '.[bench,serve]'
	@touch $@

$(VENV)/train.stamp: $(VENV)/dev.stamp
	@$(PY) tools/install.py -e . -e training
	touch $@

$(VENV)/dev.stamp: $(VENV)/venv.stamp $(SOURCES) tests/install_torch.sh
	@echo "Installing what the tests need, the CPU build of torch among it, and building the C++ extension (minutes)"
	bash tests/install_torch.sh $(PY)
	@$(PY) tools/install.py -e '.[dev]'
	$(PY) -m pip install -q --no-deps -e training
	touch $(VENV)/demo.stamp $(VENV)/serve.stamp $@
