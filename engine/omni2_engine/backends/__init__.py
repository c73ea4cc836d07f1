"""Backends: what runs an exported graph."""
