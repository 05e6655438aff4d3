"""Everything reusable, in rooms. Each says in its ``__init__`` what it is for; imports between them point one way."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime 1.31 sends its maker what it runs
