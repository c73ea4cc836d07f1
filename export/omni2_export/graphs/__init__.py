"""Graph builders: one module of the model each, written as ONNX by hand."""
