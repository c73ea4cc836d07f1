"""Commands that this floor adds to the command line."""
