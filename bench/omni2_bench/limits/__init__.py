"""`bench limits`: what share of this machine's memory bandwidth and arithmetic every stage reaches."""
