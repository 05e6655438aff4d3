"""Run stage commands one after the other in one process: ``python -m pipeline.comparison.worker``.

It reads the commands as one line of JSON and ends when its input does, so that no training outlives the comparison that
started it, however that ended. The stages run as ``python -m`` would run them; sharing a process spares each of them
seconds of imports. A training that diverged ends it with ``DIVERGED``, what else fails with the exit code of its stage.
"""

import json
import os
import runpy
import sys
import threading

from pipeline.core.errors import DivergedError

DIVERGED = 3


def run_commands(commands: list[list[str]]) -> int:
    """Run each of ``commands`` (module and arguments) until one fails; return how that ended, else 0."""
    for module, *arguments in commands:
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if isinstance(ended.__context__, DivergedError):
                return DIVERGED
            if ended.code:
                return ended.code if isinstance(ended.code, int) else 1
    return 0


def end_with_input() -> None:
    """End this process when its input ends; what a stage was writing is incomplete and does not count.

    It reads past ``sys.stdin``, whose lock it would hold: processes that a stage forks close that object first of all.
    """
    while os.read(sys.stdin.fileno(), 1 << 10):
        pass
    os._exit(1)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(run_commands(given))
