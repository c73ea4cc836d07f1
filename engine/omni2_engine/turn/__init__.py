"""One turn: its plan, its run, its prompt and its output."""
