"""What several benchmarks need: the machine, models to measure, worker processes, statistics, files of results."""
