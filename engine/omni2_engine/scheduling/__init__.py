"""What runs when: the policy of a turn, sizes of its flow chunks, its output, and who is admitted.

The scheduler itself is C++ (`omni2_engine._core.Scheduler`); docs/scheduling.md explains both.
"""
