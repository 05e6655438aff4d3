"""Tables and measured numbers in the documentation: python -m tests.documented_tables brings them up to date.

A block begins with ``<!-- table: NAME -->`` and ends with ``<!-- end of table -->``; it is written from the code or
from the committed results. What a single number looks like is said in ``tests/measured_results.py``.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.sbom import licences_table
from models.backbones.sources import BACKBONE_SOURCES
from models.core.table import Table, choose
from models.detection.detectors import DETECTORS
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.criteria import CRITERIA
from pipeline.distillation.methods import METHODS
from pipeline.evaluation.runtimes import RUNTIMES
from pipeline.export.precisions import PRECISIONS
from pipeline.preflight.stage_table import STAGES
from pipeline.tasks.table import TASKS
from tests.documented_reference import REFERENCE
from tests.measured_backbones import MEASURED
from tests.measured_results import MEASURED_RESULTS, renumbered

ROOT = Path(__file__).parent.parent
TABLES: Mapping[str, Table[Any]] = {
    "criteria": CRITERIA,
    "meta-encoders": META_ENCODERS,
    "schedules": SCHEDULES,
    "methods": METHODS,
    "backbone sources": BACKBONE_SOURCES,
    "detectors": DETECTORS,
    "data sources": SOURCES,
    "precisions": PRECISIONS,
    "runtimes": RUNTIMES,
    "tasks": TASKS,
    "stages": STAGES,
}
"""From the name of a block to the table that it shows."""
BLOCKS: Mapping[str, Callable[[], str]] = {
    **{name: table.markdown for name, table in TABLES.items()},
    **MEASURED,
    **MEASURED_RESULTS,
    **REFERENCE,
    "licences": licences_table,
}
"""From the name of a block to what writes it."""
BLOCK = re.compile(r"<!-- table: (?P<name>.*?) -->\n.*?<!-- end of table -->", re.DOTALL)


def documents() -> list[Path]:
    """Return the documents in which there may be blocks and numbers with a place."""
    elsewhere = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md", "benchmarks/README.md")
    return [*(ROOT / name for name in elsewhere), *sorted((ROOT / "docs").rglob("*.md"))]


def rewritten(text: str) -> str:
    """Return the document ``text`` with each block and each number as code and results have it now.

    Raises:
        ValueError: a block's name is unknown; the message lists the known ones. A number's place holds none.
    """
    return renumbered(BLOCK.sub(_block, text))


def _block(found: re.Match[str]) -> str:
    name = found["name"]
    show = choose(BLOCKS, name, kind="documented table")
    return f"<!-- table: {name} -->\n\n{show()}\n\n<!-- end of table -->"


def main() -> None:
    """Rewrite the documents whose blocks are not up to date."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if rewritten(text) != text:
            path.write_text(rewritten(text), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: tables rewritten")


if __name__ == "__main__":
    main()
