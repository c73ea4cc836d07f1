"""What runs the graphs of an engine: the ONNX Runtime and TensorRT backends, and the choice between them."""
