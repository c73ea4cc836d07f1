"""What stages know of any backend: graphs with their state, language models with their KV caches."""
