"""The parameters of a stage; apart from ``stages.common``, since devices that read no parameters have no YAML."""

from pathlib import Path
from typing import TypeVar

from pipeline.core.settings import Section
from pipeline.params.loading import load_section
from pipeline.preflight.stage_table import STAGES

S = TypeVar("S", bound=Section)


def load_declared(stage: str, path: Path, name: str, model: type[S]) -> S:
    """Return the section ``name`` of the parameters file ``path``, with those keys that the ``stage`` declares.

    Reading another fails: DVC would take what the stage wrote for up to date when that key changes.

    Raises:
        UserError: as ``load_section``.
    """
    return load_section(path, name, model, only=STAGES[stage].params)
