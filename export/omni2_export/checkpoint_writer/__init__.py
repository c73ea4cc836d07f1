"""Writes checkpoints in the released formats (spec §1): tokenizers, config, weights, the decoder's YAML."""
