"""Runs ONNX graphs with ONNX Runtime, on the CPU or on a GPU by its CUDA provider."""
