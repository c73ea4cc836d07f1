"""`make demo`: the demonstration model answers a spoken question."""
