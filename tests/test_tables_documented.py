"""The documentation shows the tables as the code has them."""

import json
import re
from pathlib import Path

import pytest

from tests import measured_results
from tests.documented_tables import BLOCK, TABLES, documents, rewritten
from tests.helpers import ROOT
from tests.measured_results import HOST, MARK, NUMBER

EXTENDING = ROOT / "docs/extending.md"


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_the_tables_of_a_document_are_up_to_date(document: Path) -> None:
    text = document.read_text()
    assert rewritten(text) == text, "python -m tests.documented_tables rewrites them"
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->") == len(BLOCK.findall(text))
    assert text.count(MARK) == len(NUMBER.findall(text)), "a place without a number before it"


def test_every_kind_of_extension_is_documented() -> None:
    shown = [found["name"] for found in BLOCK.finditer(EXTENDING.read_text())]
    assert shown == [name for name in TABLES if name != "stages"]


def test_the_files_of_the_tables_are_named_and_there() -> None:
    text = EXTENDING.read_text()
    for name, table in TABLES.items():
        if name == "stages":
            continue
        (place,) = {Path(entry.load.__code__.co_filename) for entry in table.values()}
        assert f"`{place.relative_to(ROOT)}`" in text, name
    for place in re.findall(r"`(tests/extensions/[\w./]+)`", text):
        assert (ROOT / place).exists(), place


def test_a_block_is_written_from_its_table_and_an_unknown_one_is_named() -> None:
    text = "a\n<!-- table: schedules -->\nold\n<!-- end of table -->\nb\n"
    lines = rewritten(text).splitlines()
    assert lines[:4] == ["a", "<!-- table: schedules -->", "", "| schedule | |"]
    assert "| `rectified` | the straight path, whose true velocity is constant |" in lines
    assert lines[-2:] == ["<!-- end of table -->", "b"]
    assert rewritten("\n".join(lines)) == "\n".join(lines)
    with pytest.raises(ValueError, match=r"unknown documented table 'schedule'; did you mean schedules"):
        rewritten("<!-- table: schedule -->\n<!-- end of table -->")


def test_a_number_is_written_from_its_place_in_the_results() -> None:
    places = {
        "67.01": "cifar10-subset/table.csv; none; accuracy; .2%",
        "80.9": "detection-digits/table.csv; none; macs; .1fM",
        "80,877,568": "detection-digits/table.csv; none; macs; ,.0f",
        "+2.29": "cifar10-subset/table.csv; fm_kt (dist) - dist; accuracy; +.2%",
        "54.13": "fine_tuning.json; students; 0; mean; .2f",
        "0.946": "library_step.json; results; 1; ratio_quartiles; 0; .3f",
        "16": "fine_tuning.json; weights; seconds; .0fmin",
        "1.07": "stored-logits/results.json; results; resnet56; storing_ms / computed_ms; .2f",
        "82.31": "detection-digits/README.md; Teacher: resnet8, AP; .2f",
    }
    for number, place in places.items():
        assert rewritten(f"a 1.5{MARK}{place} -->% b") == f"a {number}{MARK}{place} -->% b"


@pytest.mark.parametrize(
    "place",
    [
        "none.json; a; .2f",
        "cifar10-subset/table.csv; fm_kt; accuracy; .2%",
        "cifar10-subset/table.csv; none; score; .2%",
        "fine_tuning.json; students; 9; mean; .2f",
        "fine_tuning.json; classes; .2f",
        "detection-digits/README.md; Student: resnet8, AP; .2f",
    ],
)
def test_a_place_without_a_number_is_named(place: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"no result {place!r} in benchmarks/results")):
        rewritten(f"1{MARK}{place} -->")


def test_what_waits_for_a_measurement_waits_for_one_that_a_command_makes() -> None:
    commands = (ROOT / "benchmarks/README.md").read_text()
    text = "".join(path.read_text() for path in documents())
    places = [found["place"] for pattern in (NUMBER, HOST) for found in pattern.finditer(text)]
    waiting = {place.partition(";")[0].removesuffix("?").strip() for place in places if place.endswith("?")}
    assert [name for name in waiting if f"--output benchmarks/results/{name} " not in commands] == []


def test_what_is_typed_waits_for_its_measurement_and_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_results, "RESULTS", tmp_path)
    text = "2.5<!-- = a.json; took; .1f ? --> s on <!-- host of a.json ? -->a CPU<!-- end of host -->"
    assert rewritten(text) == text
    about = {"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cpus": 2}
    (tmp_path / "a.json").write_text(json.dumps({"host": about, "took": 3.25}))
    host = "<!-- host of a.json -->2 CPU cores (Intel Xeon)<!-- end of host -->"
    assert rewritten(text) == f"3.2<!-- = a.json; took; .1f --> s on {host}"
    assert rewritten(rewritten(text)) == rewritten(text)
    with pytest.raises(ValueError, match=r"no result 'a\.json; gave; \.1f'"):
        rewritten("1<!-- = a.json; gave; .1f ? -->")
