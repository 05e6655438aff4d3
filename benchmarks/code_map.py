"""The map of the code: each room with its lines and its purpose, arrows from what imports to what is imported.

Rooms, lines, purposes and arrows are read from the code; ``PLAN`` says where a room stands, and nothing else. An arrow
that follows from others is left out: every import from one room of another goes along arrows.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import click
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from benchmarks.drawing import Theme, arrow, box
from pipeline.preflight.code import PROJECT
from workbench.rooms import FILES, imports, named_files, purpose, reached, room

PLAN = (
    "tests 24",
    "deploy 8, stages 16",
    "pipeline/comparison 12, pipeline/serving 6, pipeline/report 6",
    "pipeline/preflight 12, pipeline/serving 6, pipeline/report 6",
    "pipeline/hosts 5, pipeline/params 7, pipeline/serving 6, pipeline/report 6",
    "pipeline/hosts 5, pipeline/evaluation 7, pipeline/serving 6, pipeline/report 6",
    "pipeline/hosts 5, pipeline/distillation 6, pipeline/package 7, pipeline/report 6",
    "pipeline/training 11, pipeline/export 13",
    "pipeline/tasks 24",
    "pipeline/data 8, pipeline/networks 8, pipeline/runtimes 8",
    "pipeline/core 24",
    "models 24",
)
"""The floors from the top, each with its rooms from the left and their widths; a room may stand on several floors."""
COLUMNS = 24
WIDTH, MARGIN, GAP, CLEARANCE = 8.0, 0.2, 0.14, 0.27
"""Inches: of the figure, beside its boxes, between boxes, and between floors."""
PADDING, LINE, NAME_LINE = 0.1, 0.165, 0.19
"""Inches: inside a box, from one line of text to the next, and from a name to the text."""
NAME_SIZE, TEXT_SIZE = 10, 9
PANEL, PANEL_NAME = "pipeline", 0.25
"""The package whose rooms are shown, on a panel of its own, and the inches that its name takes."""


class Place(NamedTuple):
    """The floors and columns on which a room stands, both ends included."""

    top: int
    bottom: int
    left: int
    right: int


def map_room(name: str) -> str:
    """Return the room of the map in which the file ``name`` lies: a folder of the pipeline, or another package."""
    return "/".join(room(name).split("/")[:2])


def imports_between_rooms() -> dict[str, set[str]]:
    """Return for each room the others that it imports anywhere."""
    graph: dict[str, set[str]] = {place: set() for place in map(map_room, FILES) if place}
    for name in FILES:
        if own := map_room(name):
            graph[own] |= {map_room(other) for other in named_files(name, imports(name))} - {own, ""}
    return graph


def without_what_follows(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the fewest edges along which the same nodes are reached in ``graph``, which has no circle."""
    return {
        node: {end for end in ends if not any(end in reached(graph, other) for other in ends - {end})}
        for node, ends in graph.items()
    }


def places(plan: tuple[str, ...], rooms: set[str]) -> dict[str, Place]:
    """Return where ``plan`` has each of ``rooms``.

    Raises:
        ValueError: the plan lacks a room, or has one that there is not.
    """
    found: dict[str, Place] = {}
    for floor, text in enumerate(plan):
        column = 0
        for entry in text.split(", "):
            name, width = entry.split()
            here = Place(floor, floor, column, column + int(width) - 1)
            found[name] = found.get(name, here)._replace(bottom=floor)
            column += int(width)
    if found.keys() != rooms:
        lacking, unknown = sorted(rooms - found.keys()), sorted(found.keys() - rooms)
        raise ValueError(f"PLAN of benchmarks/code_map.py lacks {lacking}, and has {unknown}, which are no rooms")
    return found


def free_columns(found: Mapping[str, Place], start: str, end: str) -> range:
    """Return the columns in which nothing stands between the room ``start`` and the room ``end`` below it.

    Raises:
        ValueError: there are none.
    """
    upper, lower = found[start], found[end]
    between = [place for place in found.values() if upper.bottom < place.bottom and place.top < lower.top]
    shared = range(max(upper.left, lower.left), min(upper.right, lower.right) + 1)
    free = [column for column in shared if not any(place.left <= column <= place.right for place in between)]
    if upper.bottom >= lower.top or not free:
        raise ValueError(
            f"{start} imports {end}, to which no straight arrow leads down; PLAN of benchmarks/code_map.py must have "
            "it below, with nothing between them"
        )
    run = [column for number, column in enumerate(free) if column == free[0] + number]
    return range(run[0], run[-1] + 1)


def rounded(count: int) -> str:
    """Return ``count`` to two digits: a map that changed with each line would be of little use."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / unit) * unit:,}"


def lines_of(place: str) -> int:
    """Return the number of lines in the files of the room ``place`` of the map."""
    return sum(len((PROJECT / name).read_bytes().splitlines()) for name in FILES if map_room(name) == place)


def wrapped(text: str, width: float) -> Iterator[str]:
    """Yield the lines of ``text`` that are at most ``width`` inches wide, of letters as drawn."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and text_width(longer) > width:
            yield line
            longer = word
        line = longer
    yield line


def text_width(text: str, size: float = TEXT_SIZE, weight: str = "normal") -> float:
    """Return how many inches wide ``text`` is drawn."""
    letters = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    return float(TextPath((0, 0), text, prop=letters).get_extents().x1) / 72


class Card(NamedTuple):
    """A room as it is drawn."""

    name: str
    lines: str
    purpose: list[str]
    left: float
    width: float

    @property
    def height(self) -> float:
        """What its text needs, in inches."""
        return 2 * PADDING + NAME_LINE + LINE * len(self.purpose)


def card(room_name: str, place: Place) -> Card:
    """Return the room ``room_name``, that stands on ``place``.

    Raises:
        ValueError: its name and its lines are wider than the place.
    """
    left = MARGIN + place.left * _column()
    width = (place.right - place.left + 1) * _column() - GAP
    name, lines = room_name.removeprefix(f"{PANEL}/"), f"{rounded(lines_of(room_name))} lines"
    inside = width - 2 * PADDING
    if text_width(f"{lines} ") + text_width(name, NAME_SIZE, "bold") > inside:
        raise ValueError(f"{room_name}: PLAN of benchmarks/code_map.py must give it more columns, for its name to fit")
    return Card(name, lines, list(wrapped(purpose(room_name), inside)), left, width)


def _column() -> float:
    return (WIDTH - 2 * MARGIN + GAP) / COLUMNS


def code_map(theme: Theme) -> Figure:
    """Return the map.

    Raises:
        click.ClickException: ``PLAN`` does not suit the code; says what it lacks.
    """
    graph = imports_between_rooms()
    try:
        found = places(PLAN, set(graph))
        cards = {name: card(name, place) for name, place in found.items()}
        ways = [
            (found[start], found[end], free_columns(found, start, end))
            for start, ends in without_what_follows(graph).items()
            for end in sorted(ends)
        ]
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    inside = [place for name, place in found.items() if name.startswith(f"{PANEL}/")]
    first, last = min(place.top for place in inside), max(place.bottom for place in inside)
    tops, bottoms = _floors(found, cards, first)
    height = bottoms[-1] + MARGIN / 2
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)  # downwards, as the floors are counted
    axes.axis("off")
    upper, lower = tops[first] - PANEL_NAME - CLEARANCE / 5, bottoms[last] + CLEARANCE / 3
    box(axes, (MARGIN / 4, upper), (WIDTH - MARGIN / 2, lower - upper), "", theme.student, fill=0.05, linewidth=0)
    name = f"{PANEL}: {purpose(PANEL)[0].lower()}{purpose(PANEL)[1:]}"
    axes.text(MARGIN + PADDING, upper + PANEL_NAME / 2 + 0.05, name, fontsize=TEXT_SIZE, color=theme.quiet, va="center")
    colors = {"models": theme.flow, PANEL: theme.student, "stages": theme.ship}
    for name, place in found.items():
        color = colors.get(name.split("/")[0], theme.quiet)
        _draw(axes, cards[name], tops[place.top], bottoms[place.bottom], color, theme.quiet)
    for start, end, columns in ways:
        x = MARGIN + (columns.start + columns.stop) / 2 * _column() - GAP / 2
        arrow(axes, (x, bottoms[start.bottom]), (x, tops[end.top]), theme.text)
    return figure


def _floors(found: Mapping[str, Place], cards: Mapping[str, Card], panel: int) -> tuple[list[float], list[float]]:
    """Return the upper and the lower ends of the floors, each as high as what ends on it needs."""
    tops: list[float] = []
    bottoms: list[float] = []
    y = MARGIN / 2
    for floor in range(len(PLAN)):
        tops.append(y + PANEL_NAME * (floor == panel))
        bottoms.append(max(tops[found[name].top] + cards[name].height for name in found if found[name].bottom == floor))
        y = bottoms[-1] + CLEARANCE
    return tops, bottoms


def _draw(axes: Axes, card: Card, top: float, bottom: float, color: str, quiet: str) -> None:
    box(axes, (card.left, top), (card.width, bottom - top), "", color)
    x, y = card.left + PADDING, top + PADDING + NAME_LINE / 2
    axes.text(x, y, card.name, fontsize=NAME_SIZE, fontweight="bold", va="center")
    end = card.left + card.width - PADDING
    axes.text(end, y, card.lines, fontsize=TEXT_SIZE, color=quiet, va="center", ha="right")
    for number, text in enumerate(card.purpose):
        axes.text(x, y + NAME_LINE + LINE * number, text, fontsize=TEXT_SIZE, color=quiet, va="center")
