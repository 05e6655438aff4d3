"""ONNX files: the smallest form of the student, in each precision, verified before it is kept."""
