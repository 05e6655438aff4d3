"""The pages of docs/reference that are written from the code: parameters, commands, presets and targets of make."""

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from pipeline.params.presets import PRESETS, list_presets
from pipeline.params.reference import Parameter, parameters
from stages.__main__ import main

ROOT = Path(__file__).parent.parent


def _cell(text: str) -> str:
    """Return ``text`` as one cell of a table, in which no character is taken for Markdown or HTML."""
    return _prose(" ".join(text.split())).replace("|", "\\|")


def _value(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def documented_parameters() -> str:
    """Return a section for each section of the parameters file, with a table of its keys."""
    parts = []
    for section in parameters().children.values():
        parts += [f"## {section.name}", f"{section.description[0].upper()}{section.description[1:]}.", _keys(section)]
    return "\n\n".join(parts)


def _keys(section: Parameter) -> str:
    rows = ["| key | default | means | takes |", "|---|---|---|---|"]
    for key in section.all_below():
        name = key.key.removeprefix(f"{section.name}.")
        if key.children:
            rows.append(f"| **`{name}`** | | *{_cell(key.description)}* | |")
        else:
            rows.append(f"| `{name}` | {_value(key.default)} | {_cell(key.description)} | {_cell(_takes(key))} |")
    return "\n".join(rows)


def _takes(key: Parameter) -> str:
    said = [f"{name}: {text}" for name, text in key.choices.items() if text]
    return key.values if not said else f"{key.values} ({'; '.join(said)})"


def documented_commands() -> str:
    """Return each command of ``fmkt`` as its help says it, under the titles of ``fmkt --help``."""
    parts = []
    for title, commands in main.sections.items():
        parts.append(f"## {title}")
        for command in commands:
            context = click.Context(command, info_name=f"fmkt {command.name}")
            parts += [f"### fmkt {command.name}", "\n".join(_help(command, context))]
    return "\n\n".join(parts)


def _help(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"`fmkt {command.name} {usage}`"
    yield ""
    yield _prose(inspect.cleandoc(command.help or ""))
    options = [parameter for parameter in command.get_params(context) if isinstance(parameter, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context))]
    yield ""
    yield "| option | |"
    yield "|---|---|"
    for option, text in records:
        yield f"| `{option.replace('|', ' or ')}` | {_cell(text)} |"


def _prose(text: str) -> str:
    return re.sub(r"([*\\\[])", r"\\\1", text.replace("\b", "")).replace("<", "&lt;")


def documented_presets() -> str:
    """Return the presets with what they are for."""
    rows = ["| preset | |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {_cell(title)} |" for name, title in list_presets(PRESETS).items())])


def documented_targets() -> str:
    """Return the targets of make."""
    found = re.findall(r"^([a-z-]+):.*?## (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return "\n".join(["| target | |", "|---|---|", *(f"| `make {name}` | {_cell(text)} |" for name, text in found)])


REFERENCE: Mapping[str, Callable[[], str]] = {
    "parameters": documented_parameters,
    "commands": documented_commands,
    "presets": documented_presets,
    "targets": documented_targets,
}
"""From the name of a block to what writes it."""
