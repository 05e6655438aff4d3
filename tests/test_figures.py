"""The figures of the documentation are what the committed results give."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.figures import main
from tests.helpers import ROOT

ASSETS = ROOT / "docs/assets"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    done = CliRunner().invoke(main, ["--output", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


def test_the_committed_figures_are_those_of_the_committed_results(drawn: Path) -> None:
    names = sorted(path.name for path in drawn.iterdir())
    assert names == sorted(path.name for path in ASSETS.glob("*.svg"))
    for name in names:
        assert (drawn / name).read_bytes() == (ASSETS / name).read_bytes(), f"{name}: make figures draws it anew"


def test_each_figure_is_there_for_light_and_dark_pages(drawn: Path) -> None:
    names = {path.stem.removesuffix("-light") for path in drawn.glob("*-light.svg")}
    assert names == {path.stem.removesuffix("-dark") for path in drawn.glob("*-dark.svg")}
    assert {"overview", "method", "tradeoff", "chain"} <= names


def test_a_figure_does_not_say_when_it_was_drawn(drawn: Path) -> None:
    for path in drawn.iterdir():
        assert "<dc:date>" not in path.read_text(), path.name
