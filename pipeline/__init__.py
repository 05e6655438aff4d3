"""Everything reusable of the pipeline, in rooms; imports point from the later to the earlier of them.

core, data, networks, runtimes, tasks, training, export, distillation, package, evaluation, params, preflight,
comparison, serving: each says in its ``__init__`` what it is for.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime 1.31 sends its maker what it runs
