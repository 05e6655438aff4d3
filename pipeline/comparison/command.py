"""A whole comparison: check everything, obtain the teacher, tune, run the trials, report."""

import heapq
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.comparison.config import Changes, Comparison, load_comparison
from pipeline.comparison.plan import (
    Trial,
    check_sides,
    code_digests,
    probe_command,
    teacher_run,
    trials,
    tuning_trials,
    unfinished,
)
from pipeline.comparison.report import Findings, write_report
from pipeline.comparison.results import Result, Store, Teaching, flat, read_result, read_teaching
from pipeline.comparison.runner import Running, run_all, run_command
from pipeline.comparison.side_by_side import choose_jobs
from pipeline.comparison.tuning import choose, tried
from pipeline.core.errors import UserError, written_file
from pipeline.core.files import exclusive
from pipeline.tasks.table import get_task

logger = logging.getLogger(__name__)

Find = Callable[[Trial], Result | None]


def run_comparison(
    config: Path,
    out: Path,
    report: Path,
    *,
    jobs: int | None,
    results: Path | None = None,
    minutes: float | None = None,
    same_code: bool = False,
) -> str:
    """Run what is unfinished of the comparison file ``config`` below ``out``; return the tables as Markdown.

    Args:
        jobs: how many runs go side by side; None: as many as the host takes.
        results: a folder of results to go on from, and to keep new ones in; where it has all, nothing is run.
        minutes: no seed is begun that would not end by then; None: all are.
        same_code: whether results of other code do not count.

    Raises:
        UserError: the comparison or the parameters of a method are wrong; nothing has run then.
        BusyError: another comparison is at work below ``out``.
        OSError: nothing can be written into ``report`` or ``results``; nothing has run then.
        GateError: runs failed; the others are kept.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    comparison = load_comparison(config)
    for folder in filter(None, (report, results)):
        _require_writable(folder)
    with exclusive(out):
        study = Study(comparison, out, Store(results, same_code=same_code), jobs=jobs, deadline=deadline)
        found = study.kept() or study.run()
    if isinstance(found, str):
        return found
    options = {"--results": results, "--minutes": None if minutes is None else f"{minutes:g}"}
    further = "".join(f" {name} {value}" for name, value in options.items() if value is not None)
    command = f"python -m stages compare {config} --out {out} --report {report} --jobs {jobs or 'auto'}{further}"
    return write_report(comparison, study.teacher, study.trials, found, report, command)


def _require_writable(folder: Path) -> None:
    """Raise OSError where nothing can be written into ``folder``, which need not exist: hours of runs come before."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    with written_file(folder, work=there), tempfile.TemporaryFile(dir=there):
        pass


class Study:
    """A comparison at work below ``out``.

    Args:
        store: results to go on from, and to keep new ones in.
        deadline: by ``time.monotonic``.

    Raises:
        UserError: the parameters of a method are wrong.
    """

    def __init__(
        self, comparison: Comparison, out: Path, store: Store, *, jobs: int | None = 1, deadline: float | None = None
    ) -> None:
        self.comparison = comparison
        self.out = out
        self.store = store
        self.jobs = jobs
        self.deadline = deadline
        first = dict.fromkeys(comparison.tuned_methods, comparison.tried_values[0])
        self.tuning = tuning_trials(comparison, out)
        checked = comparison.seeds[:1] if first else comparison.seeds
        self.trials = trials(comparison, out, first, seeds=checked)
        """All that are wanted; where values are tuned, until they are chosen, those of a seed with some of them."""
        check_sides(comparison, [*self.trials, *self.tuning])
        self.teacher = teacher_run(comparison, out)

    def kept(self) -> Findings | None:
        """Return what the kept results alone say; None where one is missing."""
        teaching = self.store.teaching
        if teaching is None or not teaching.same_parameters(flat(self.teacher.parameters())):
            return None
        found = self._findings(teaching, lambda runs: self._finished(runs, lambda run: self.store.find(run, teaching)))
        complete = found is not None and found.seeds == self.comparison.seeds
        return found if complete else None

    def run(self) -> Findings | str:
        """Run what is missing, as far as the time goes; return what is found, or why there is nothing to report."""
        if run_command(probe_command(self.teacher)):
            raise UserError(f"{self.teacher.folder / 'params.yaml'}: stopped at its check; see the line above")
        run_all(unfinished([self.teacher]), jobs=1)
        teaching = read_teaching(self.teacher)
        self.store.keep_teaching(teaching)
        found = self._findings(teaching, lambda runs: self._bring(runs, teaching))
        if found is None or not found.results:
            what = "the runs that tune are not all" if found is None else "no seed is"
            return f"Nothing to report yet: {what} finished; the same command goes on."
        return found

    def _findings(self, teaching: Teaching, bring: Callable[[Sequence[Trial]], list[Result]]) -> Findings | None:
        """Return what ``bring`` finds of the runs that tune, and with the values that they choose of the trials.

        Values with which a trial diverges have lost: the next best take their place, for all seeds.
        None: not all values can be chosen yet.
        """
        tuning = bring(self.tuning)
        if len(tuning) < len(self.tuning):
            return None
        while True:
            tries = tried(self.comparison, tuning, get_task(teaching.task).primary)
            chosen = choose(tries)
            if chosen:
                self.trials = trials(self.comparison, self.out, chosen)
            diverged = self._diverged(teaching)  # of an earlier call: none of its other seeds is begun
            if not diverged:
                found = bring(self.trials)
                diverged = self._diverged(teaching)
                if not diverged:
                    return Findings(teaching, found, tuning, tries, chosen)
            tuning += diverged

    def _diverged(self, teaching: Teaching) -> list[Result]:
        """Return the kept results of trials that diverged."""
        kept = [self.store.find(run, teaching) for run in self.trials]
        return [result for result in kept if result is not None and result.diverged is not None]

    def _bring(self, runs: Sequence[Trial], teaching: Teaching) -> list[Result]:
        """Run those of ``runs`` that are missing, as far as the time goes; return the results of whole seeds."""
        code, lost = code_digests(), list[tuple[str, Changes]]()

        def keep(run: Trial) -> None:
            if self._keep(run, teaching).diverged is not None and run.is_evaluated:
                lost.append((run.method, run.values))

        def find(run: Trial) -> Result | None:
            kept = self.store.find(run, teaching)
            if kept is None and run.is_done(code):
                self._keep(run, teaching)
                kept = self.store.find(run, teaching)
            return kept

        missing = [run for run in runs if find(run) is None]
        logger.info("%d of %d runs are done already", len(runs) - len(missing), len(runs))
        if missing and self.jobs is None:
            self.jobs = choose_jobs(missing)
            logger.info("%d runs side by side", self.jobs)
        groups, begun = _by_seed(missing), dict[int, bool]()

        def is_wanted(run: Trial, at_work: Sequence[Running[Trial]]) -> bool:
            if (run.method, run.values) in lost:
                return False
            if run.seed not in begun:
                begun[run.seed] = self._would_end(groups[run.seed], at_work)
                if not begun[run.seed]:
                    logger.info("seed %d would not end within the time", run.seed)
            return begun[run.seed]

        run_all(missing, jobs=self.jobs or 1, on_done=keep, is_wanted=is_wanted)
        return self._finished(runs, lambda run: self.store.find(run, teaching))

    def _keep(self, run: Trial, teaching: Teaching) -> Result:
        result = read_result(run, teaching)
        self.store.keep(run, result)
        return result

    def _would_end(self, group: Sequence[Trial], at_work: Sequence[Running[Trial]]) -> bool:
        """Return whether ``group`` would end in time beside the runs ``at_work``, by what its methods took here."""
        if self.deadline is None:
            return True
        code = code_digests()
        took: dict[str, list[float]] = {}
        for run in (*self.tuning, *self.trials):
            if run.is_done(code) and run.diverged() is None:  # one that diverged took less than a whole run does
                took.setdefault(run.method, []).append(run.seconds())
        known = {method: statistics.fmean(seconds) for method, seconds in took.items()}
        usual = statistics.fmean(known.values()) if known else 0.0
        free = [max(0.0, known.get(item.run.method, usual) - item.seconds()) for item in at_work]
        free += [0.0] * ((self.jobs or 1) - len(free))
        heapq.heapify(free)
        needed = 0.0
        for run in group:  # each in the place that is free first, as they are run
            end = free[0] + known.get(run.method, usual)
            heapq.heapreplace(free, end)
            needed = max(needed, end)
        return time.monotonic() + needed < self.deadline

    def _finished(self, runs: Sequence[Trial], find: Find) -> list[Result]:
        """Return the results of those seeds whose ``runs`` are all finished."""
        results = []
        for group in _by_seed(runs).values():
            found = [result for run in group if (result := find(run)) is not None]
            results += found if len(found) == len(group) else []
        return results


def _by_seed(runs: Sequence[Trial]) -> dict[int, list[Trial]]:
    """Return ``runs`` by their seed, in the order of their first."""
    groups: dict[int, list[Trial]] = {}
    for run in runs:
        groups.setdefault(run.seed, []).append(run)
    return groups
