"""Benchmarks, the demo, and checkpoints with random weights."""
