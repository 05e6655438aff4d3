"""What a training stage tells other hosts of itself, and what it is on one of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json
from pipeline.core.libraries import library_versions
from pipeline.hosts.agreement import files_of, params_of
from pipeline.hosts.channel import VERSION, Training
from pipeline.hosts.joiner import Place
from pipeline.params.loading import load_section, read_sections
from pipeline.preflight.code import stage_digest
from pipeline.preflight.stage_table import STAGES, Kind, StageEntry, command_line
from pipeline.training.settings import ExecutionSettings, Hosts

TRAININGS = ("train_teacher", "distill_student")
"""The stages in which several hosts can take part."""


def run_on_hosts(stage: str, params_path: Path, execution: ExecutionSettings, paths: Mapping[str, Path]) -> bool:
    """Run ``stage`` in the processes and on the hosts that the parameters ask for; return whether it was so.

    Args:
        paths: what it reads, by argument name: inputs, and the probe's facts.

    Raises:
        UserError, LostHostError, LostProcessError, SaidError: see ``pipeline.hosts.launch.run_in_processes``.
    """
    from pipeline.hosts.launch import run_in_processes  # brings PyTorch, which a host that waits does without

    # not declared to DVC: where processes run changes nothing of the result
    hosts = load_section(params_path, "execution.hosts", Hosts)
    entry = STAGES[stage]

    def describe() -> Training:
        params = params_of(read_sections(params_path), entry.params)
        return Training(
            version=VERSION,
            silence_seconds=hosts.silence_seconds,
            stage=stage,
            num_hosts=hosts.num_hosts,
            num_processes=execution.num_processes,
            code=stage_digest(stage),
            libraries=dict(library_versions()),
            params=params,
            files=dict(files_of({name: paths[name] for name in _of_kind(entry, Kind.INPUT)}, params)),
            facts=_facts(entry, paths),
        )

    return run_in_processes(entry.module, execution.num_processes, hosts, describe)


def place_of(stage: str, params_path: Path) -> Place:
    """Return what ``stage`` is on a host that takes part in it, in the project of the working directory.

    Raises:
        UserError: it is no training.
    """
    if stage not in TRAININGS:
        raise UserError(f"the head runs {stage!r}, which is no training here; check out the same commit")
    entry = STAGES[stage]
    paths = {name: Path(path) for name, path in entry.project_paths().items()}
    inputs = {name: paths[name] for name in _of_kind(entry, Kind.INPUT)}

    def command(outputs: Path, facts: Path) -> list[str]:
        given = {name: outputs / path.name for name, path in paths.items()}
        given |= dict.fromkeys(_of_kind(entry, Kind.FACTS), facts) | inputs
        return command_line(stage, given, params_path)

    return Place(entry.params, inputs, command)


def _of_kind(entry: StageEntry, kind: Kind) -> list[str]:
    return [option.argument for option in entry.options if option.kind is kind]


def _facts(entry: StageEntry, paths: Mapping[str, Path]) -> Json:
    """Return what the stage declares of the probe's facts, where it reads them."""
    found: dict[str, Any] = {}
    for name in _of_kind(entry, Kind.FACTS):
        content = read_json(paths[name])
        for key in entry.facts:
            *above, last = key.split(".")
            source, target = content, found
            for part in above:
                source, target = source.get(part, {}), target.setdefault(part, {})
            if last in source:
                target[last] = source[last]
    return found
