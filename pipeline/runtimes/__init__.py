"""One interface over PyTorch, ONNX Runtime and TensorRT."""
