"""What the commands on a package need of Python, as pip reads it: files that lie in each package."""

EDGE_FILE = "requirements-edge.txt"
SERVE_FILE = "requirements-serve.txt"
ENGINE_FILE = "requirements-build-engine.txt"
EDGE = """\
# What predict, verify, benchmark, about and triton-repository need; on a GPU onnxruntime-gpu in place of onnxruntime.
numpy>=1.26
onnxruntime>=1.18
pillow>=11
"""
REQUIREMENTS = {
    EDGE_FILE: EDGE,
    SERVE_FILE: f"""\
# What serve needs.
-r {EDGE_FILE}
httptools>=0.6
prometheus-client>=0.21
starlette>=0.46
tritonclient[grpc]>=2.60
uvicorn>=0.34
uvloop>=0.21
""",
    ENGINE_FILE: f"""\
# What build-engine needs beside TensorRT: pip install 'tensorrt>=10.3'; on JetPack apt-get install python3-libnvinfer.
-r {EDGE_FILE}
nvidia-ml-py>=12
onnx>=1.19
polygraphy>=0.49.26
""",
}
"""From each file to its content."""
