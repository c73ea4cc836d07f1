"""`bench latency`: first chunk, whole answer and cost per chunk, beside the original's algorithm in PyTorch."""
