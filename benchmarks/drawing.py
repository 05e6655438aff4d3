"""What the figures are drawn with: the colours of light and of dark pages, boxes and arrows."""

from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch


class Theme(NamedTuple):
    """Colours of a page."""

    name: str
    text: str
    quiet: str
    """Of axes, arrows and notes."""
    teacher: str
    student: str
    flow: str
    ship: str


THEMES = (
    Theme("light", "#1f2328", "#59636e", "#8250df", "#0969da", "#bc4c00", "#1a7f37"),
    Theme("dark", "#e6edf3", "#9198a1", "#bc8cff", "#58a6ff", "#f0883e", "#3fb950"),
)


def box(axes: Axes, place: tuple[float, float], size: tuple[float, float], text: str, color: str, **style: Any) -> None:
    """Draw a rounded box with its lower left corner at ``place``, in the axes' units (inches)."""
    patch = FancyBboxPatch(
        place, *size, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=(*_rgb(color), style.pop("fill", 0.12)), edgecolor=color, linewidth=style.pop("linewidth", 1.3),
        **style,
    )  # fmt: skip
    axes.add_patch(patch)
    axes.text(place[0] + size[0] / 2, place[1] + size[1] / 2, text, ha="center", va="center", fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, **style: Any) -> None:
    """Draw an arrow."""
    patch = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=10, shrinkA=1, shrinkB=1, color=color, linewidth=1.3, **style
    )
    axes.add_patch(patch)


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue
