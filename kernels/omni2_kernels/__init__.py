"""Kernels: what is computed outside the graphs, in CUDA C++ and, where the host needs it too, in numpy."""
