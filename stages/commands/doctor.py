"""``fmkt doctor``: what this host can do."""

import json
import sys
from pathlib import Path

import click

from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="What this host can do, and what to install.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@exit_codes
def doctor(as_json: bool) -> None:  # noqa: FBT001
    """Say what this host can do: CPU, memory, disk, GPU, TensorRT, ONNX Runtime, and what to install for more.

    Ends with 1 where a run would fail.
    """
    from pipeline.core.text_table import described
    from pipeline.preflight.doctor import examine

    findings = examine(Path())
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        if as_json:
            say(json.dumps(finding._asdict()))
            continue
        lines = described([(finding.subject.ljust(width), finding.found)])
        say("\n".join(lines), fg="red" if finding.is_fault else None)
        if finding.advice:
            said = described([(" " * width, f"-> {finding.advice}")])
            say("\n".join(said), fg="yellow")
    if any(finding.is_fault for finding in findings):
        sys.exit(1)
