"""Kernels: signal arithmetic outside the graphs."""
