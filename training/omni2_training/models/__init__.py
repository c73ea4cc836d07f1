"""Modules that only training needs: the unit tokenizer, factorised tables, discriminators."""
