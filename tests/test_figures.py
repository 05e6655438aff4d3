"""The figures of the documentation are what the committed results give."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

ASSETS = ROOT / "docs/assets"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    subprocess.run([sys.executable, ROOT / "benchmarks/figures.py", "--output", folder], check=True)
    return folder


def test_the_committed_figures_are_those_of_the_committed_results(drawn: Path) -> None:
    names = sorted(path.name for path in drawn.iterdir())
    assert names == sorted(path.name for path in ASSETS.glob("*.svg"))
    for name in names:
        assert (drawn / name).read_bytes() == (ASSETS / name).read_bytes(), f"{name}: make figures draws it anew"


def test_each_figure_is_there_for_light_and_dark_pages(drawn: Path) -> None:
    names = {path.stem.rpartition("-")[0] for path in drawn.iterdir()}
    assert {path.stem for path in drawn.iterdir()} == {
        f"{name}-{theme}" for name in names for theme in ("light", "dark")
    }


def test_a_figure_says_neither_when_nor_by_what_it_was_drawn(drawn: Path) -> None:
    for path in drawn.iterdir():
        assert not re.search(r"dc:date|<dc:creator>|Matplotlib v", path.read_text()), path.name
