"""Plain PyTorch modules of all the mathematics; exported graphs are checked against them, the benchmark runs them.

Everything is float32 and eager; parameters carry the checkpoint's names, so weights map by name.
"""
