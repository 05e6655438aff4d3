"""A server of the Open Inference Protocol, over HTTP and gRPC, for the ONNX files of a package."""
