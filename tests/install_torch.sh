#!/usr/bin/env bash
# Installs the CPU build of torch, for the tests' reference modules: `tests/install_torch.sh PYTHON`.
# On Linux the plain wheel of the package index brings some gigabytes of CUDA along, so the CPU wheel is asked for first:
# from what pip is set up with, then from PyTorch's own index. macOS has one wheel, without CUDA.
set -euo pipefail
python="$1"
version=2.13.0

if "$python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$version')" 2>/dev/null; then
    exit 0
fi
if [ "$(uname -s)" = Linux ]; then
    "$python" -m pip install -q "torch==$version+cpu" 2>/dev/null && exit 0
    "$python" -m pip install -q "torch==$version+cpu" --extra-index-url https://download.pytorch.org/whl/cpu && exit 0
    echo "The CPU build of torch $version cannot be had here; installing the index's own build." >&2
fi
exec "$python" -m pip install -q "torch==$version"
