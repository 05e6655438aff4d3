"""The map of the code: it has all imports, each goes along its arrows, and what cannot be drawn is refused."""

import pytest

from benchmarks import code_map
from workbench.rooms import FILES, imports, named_files, reached


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return code_map.imports_between_rooms()


def test_every_import_goes_along_the_arrows_and_no_arrow_follows_from_others(graph: dict[str, set[str]]) -> None:
    arrows = code_map.without_what_follows(graph)
    for name in FILES:
        own = code_map.map_room(name)
        others = {code_map.map_room(file) for file in named_files(name, imports(name))} - {""}
        assert not own or others <= reached(arrows, own), name
    for start, ends in arrows.items():
        for end in ends:
            fewer = arrows | {start: ends - {end}}
            assert end not in reached(fewer, start), f"{start} -> {end}"
            assert end in graph[start]


def test_an_arrow_that_follows_is_left_out() -> None:
    graph = {"top": {"middle", "ground", "beside"}, "middle": {"ground"}, "beside": set(), "ground": set()}
    assert code_map.without_what_follows(graph)["top"] == {"middle", "beside"}


def test_each_room_of_the_pipeline_stands_in_the_map(graph: dict[str, set[str]]) -> None:
    rooms = {path.parent.name for path in (code_map.PROJECT / "pipeline").glob("*/__init__.py")}
    assert set(graph) == {"models", "stages", "deploy", "tests", *(f"pipeline/{name}" for name in rooms)}


PLAN = ("roof 4", "left 2, right 2", "left 2, cellar 2", "ground 4")


def test_an_arrow_takes_the_columns_that_are_free() -> None:
    found = code_map.places(PLAN, {"roof", "left", "right", "cellar", "ground"})
    assert found["left"] == (1, 2, 0, 1)
    assert code_map.free_columns(found, "roof", "left") == range(2)
    assert code_map.free_columns(found, "left", "ground") == range(2)


@pytest.mark.parametrize(("start", "end"), [("right", "ground"), ("ground", "roof"), ("left", "right")])
def test_an_arrow_upwards_or_through_a_room_is_refused(start: str, end: str) -> None:
    found = code_map.places(PLAN, {"roof", "left", "right", "cellar", "ground"})
    with pytest.raises(ValueError, match=f"{start} imports {end}, to which no straight arrow leads down"):
        code_map.free_columns(found, start, end)


def test_a_room_without_a_place_and_a_place_without_a_room_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks \['attic'\], and has \['cellar'\], which are no rooms"):
        code_map.places(PLAN, {"roof", "left", "right", "attic", "ground"})


def test_a_name_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pipeline/distillation: PLAN of benchmarks/code_map\.py must give it more"):
        code_map.card("pipeline/distillation", code_map.Place(0, 0, 0, 2))


@pytest.mark.parametrize(("count", "shown"), [(7, "7"), (94, "94"), (743, "740"), (6769, "6,800"), (35_833, "36,000")])
def test_lines_are_shown_to_two_digits(count: int, shown: str) -> None:
    assert code_map.rounded(count) == shown


def test_lines_of_text_fit_and_nothing_of_it_is_lost() -> None:
    text = code_map.purpose("pipeline/tasks")
    lines = list(code_map.wrapped(text, 2.0))
    assert len(lines) > 2
    assert all(code_map.text_width(line) <= 2.0 for line in lines)
    assert " ".join(lines) == text
