"""A whole comparison: check everything, obtain the teacher, run the trials, report."""

from pathlib import Path

from pipeline.comparison.config import load_comparison
from pipeline.comparison.plan import probe_command, teacher_run, trials
from pipeline.comparison.report import write_report
from pipeline.comparison.runner import run_all, run_command
from pipeline.core.errors import UserError
from pipeline.core.files import exclusive


def run_comparison(config: Path, out: Path, report: Path, *, jobs: int) -> str:
    """Run what is unfinished of the comparison file ``config`` below ``out``; return the table as Markdown.

    Raises:
        UserError: the comparison or the parameters of a method are wrong; nothing has run then.
        BusyError: another comparison is at work below ``out``.
        GateError: runs failed; the others are kept.
    """
    comparison = load_comparison(config)
    with exclusive(out):
        runs, teacher = trials(comparison, out), teacher_run(comparison, out)
        if run_command(probe_command(teacher)):
            raise UserError(f"{teacher.folder / 'params.yaml'}: stopped at its check; see the line above")
        run_all([teacher], jobs=1)
        run_all(runs, jobs=jobs)
    command = f"python -m stages compare {config} --out {out} --report {report} --jobs {jobs}"
    return write_report(comparison, teacher, runs, report, command)
