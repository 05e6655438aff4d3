"""What a package says of itself: its name, version and licence, where it comes from, and which files it has."""

from pipeline.core.files import Json
from pipeline.core.plain_file import sum_of_plain_file
from pipeline.core.printable import printable
from pipeline.core.text_table import counted
from pipeline.package.reader import Package
from pipeline.package.sums import LARGEST_LIST, SUMS

Rows = list[tuple[str, str]]

NAMED = 5
"""Changed files that are named."""
SPLITS = ("train", "calib", "test")
"""In the order in which they are named."""
NOT_STATED = "not stated"
BEFORE = {"name": None, "version": None, "licence": None, "commit": None, "changed_files": None, "data": None}
"""What packages of versions that did not state it have."""


def about_package(package: Package) -> Json:
    """Return all that ``package`` says of itself, as JSON has it; None stands for what it does not state."""
    manifest = package.manifest
    stated = {**BEFORE, "name": package.name, **manifest.get("about", {})}
    files = {
        precision: {"file": path.name, "bytes": manifest["files"][path.name]["bytes"]}
        for precision, path in package.files.items()
    }
    return stated | {
        "task": package.task.name,
        "num_classes": len(package.class_names),
        "input": package.signature.input.describe(),
        "outputs": [output.describe() for output in package.signature.outputs],
        "num_steps": manifest["num_steps"],
        "files": files,
        "left_out": dict(package.left_out),
        "warnings": package.warnings,
        "sha256sums_sha256": sum_of_plain_file(package.folder / SUMS, most=LARGEST_LIST),
    }


def about_rows(about: Json) -> Rows:
    """Return what ``about_package`` found, for a terminal."""
    taken, outputs = about["input"], ", ".join(output["name"] for output in about["outputs"])
    steps = "none" if about["num_steps"] is None else str(about["num_steps"])
    rows = [
        ("name", about["name"]),
        *origin_rows(about),
        ("task", f"{about['task']}, {about['num_classes']:,} classes"),
        ("input", f"{taken['name']}, {taken['dtype']}, {' x '.join(map(str, taken['shape']))}"),
        ("outputs", outputs),
        ("sampling steps", steps),
        *((f"file of {name}", f"{file['file']}, {file['bytes']:,} bytes") for name, file in about["files"].items()),
        *((f"left out: {name}", why) for name, why in about["left_out"].items()),
        *(("warning", text) for text in about["warnings"]),
        ("SHA-256 of its sums", about["sha256sums_sha256"]),
    ]
    return [(printable(title), printable(value)) for title, value in rows]


def origin_rows(stated: Json) -> Rows:
    """Return version, licence, commit and images of what a manifest states under ``about``."""
    rows = [(name, _text(stated[name])) for name in ("version", "licence")]
    commit = _text(stated["commit"])
    if stated["changed_files"] is not None:
        changed = stated["changed_files"]
        more = f" and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
        commit += f", with changes in {', '.join(changed[:NAMED])}{more}" if changed else ", without changes"
    rows.append(("commit", commit))
    data = stated["data"]
    if data is None:
        return [*rows, ("images", NOT_STATED)]
    numbers = counted({f"in {name}": count for name, count in data["num_images"].items()})
    rows.append(("images", f"{_text(data['name'])} (source {_text(data['source'])}): {numbers}"))
    if data["newest_file"] is not None:
        rows.append(("newest file of the images", f"{_text(data['newest_file'])} (UTC)"))
    if data["carried_by"] is not None:
        rows.append(("images come with", _text(data["carried_by"])))
    digests = data["sha256"]
    splits = sorted(digests, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))
    rows += [(f"SHA-256 of {name}", _text(digests[name])) for name in splits]
    return rows


def _text(value: str | None) -> str:
    return NOT_STATED if value is None else value
