"""Where the steps of turns run: on the thread that asks, or on the scheduler's."""
