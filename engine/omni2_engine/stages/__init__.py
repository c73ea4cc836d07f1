"""Stages: one module of the model each, with a state object of its own."""
