"""A server under load for hours: what it holds, whether every answer is accounted for, and what is left afterwards."""
