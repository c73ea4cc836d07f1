"""A CUDA device: its streams, its memory, arrays in it, staging buffers and kernels."""
