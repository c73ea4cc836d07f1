"""The memory of conversations and turns: its budget, its admission, its states."""
