"""Runs TensorRT plans on a GPU, and decodes there several tokens at a time."""
