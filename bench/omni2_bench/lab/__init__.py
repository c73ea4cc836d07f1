"""Measurements behind the figures in docs/, each run by `python -m omni2_bench.lab.NAME`."""
