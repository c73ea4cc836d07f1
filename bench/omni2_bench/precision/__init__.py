"""`bench precision`: every graph in every number format against float32, on the CPU, in dB."""

from omni2_bench.precision.run import PrecisionPlan, run

__all__ = ["PrecisionPlan", "run"]
