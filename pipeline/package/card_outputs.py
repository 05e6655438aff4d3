"""What a model card says of the outputs beside their use."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.package.reader import Package
from pipeline.package.schema import CLASS_NAMES_FILE


def what_outputs_mean(package: Package) -> str:
    """Return what the task says of its outputs, and where classes are named; empty where the use above says it all."""
    facts = list(_flat(package.task.output_facts()))
    if not facts:
        return ""
    rows = ["| output | type | shape |", "|---|---|---|"]
    rows += [
        f"| `{output.name}` | {output.dtype} | {', '.join(('batch', *map(str, output.shape)))} |"
        for output in package.signature.outputs
    ]
    rows += ["", "| of the outputs | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts)]
    ids = " and its id in the data that it was trained on" if package.classes.ids is not None else ""
    named = f"[{CLASS_NAMES_FILE}]({CLASS_NAMES_FILE}) has the name of each class{ids}, by its number in the outputs."
    return "\n\n" + "\n".join([*rows, "", named, ""])


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield ``facts`` with those of parts by both names."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}: {inner}", found) for inner, found in _flat(value))
        else:
            yield key.replace("_", " "), value
