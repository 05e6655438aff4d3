"""Exports in every precision, each verified before it is kept: ``onnx`` and ``tensorrt`` make the files."""
