"""Run stage commands one after the other in one process: ``python -m pipeline.comparison.worker`` reads them as JSON.

The stages run as ``python -m`` would run them; sharing a process spares each of them seconds of imports.
"""

import json
import runpy
import sys


def run_commands(commands: list[list[str]]) -> int:
    """Run each of ``commands`` (module and arguments) and return the first exit code other than 0, else 0."""
    for module, *arguments in commands:
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if ended.code:
                return ended.code if isinstance(ended.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(run_commands(json.load(sys.stdin)))
