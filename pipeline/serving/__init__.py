"""A server that speaks the Open Inference Protocol, over HTTP and gRPC, for the ONNX files of a package."""
