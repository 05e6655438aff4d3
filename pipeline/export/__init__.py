"""Exports: the table of precisions, and the folder that an export writes. ``onnx`` and ``tensorrt`` make the files."""
