"""The engine directory: dimensions of the model, manifest, tables."""
