"""TensorRT engines: what they are to be, whether TensorRT takes a graph, and how they are built and verified."""
