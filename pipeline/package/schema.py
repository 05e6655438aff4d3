"""What the JSON files of a package hold: declared here once, for all who read them.

The manifest and calibration.json are records of stages, of which more is said in ``pipeline.core.records``; what a
package adds, and what earlier versions left out, stands here.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.core.plain import Part, at_least, read_plain, shown
from pipeline.core.plain_file import read_plain_file
from pipeline.core.records import CalibrationRecord, NumSteps, Size
from pipeline.core.strict_json import parse_json
from pipeline.export.folder import MANIFEST
from pipeline.export.tensorrt.plan import EngineSettings
from pipeline.package.sums import AGAIN, damaged_files, place_of, say_again
from pipeline.tasks.base import Classes

MOST_CLASSES = 2**20
LONGEST_NAME = 200
"""Characters; the name is part of URLs and folders."""
LONGEST_LABEL = 1000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
RESERVED = "stats"
"""A path of the Open Inference Protocol stands where the model of this name would: /v2/models/stats."""


def is_name(text: str) -> str | None:
    """Say what is expected where ``text`` can be no part of a URL, nor a file or folder by itself."""
    if len(text) <= LONGEST_NAME and NAME.fullmatch(text):
        return None
    return f"at most {LONGEST_NAME} letters, digits, '.', '_' and '-', the first a letter or digit"


Name = Annotated[str, is_name]
Bytes = Annotated[int, at_least(0)]
Count = Annotated[int, at_least(0)]


@dataclass(frozen=True, kw_only=True)
class PackagedFile(Part):
    """What a manifest says of an ONNX file."""

    precision: Name
    bytes: Bytes


@dataclass(frozen=True, kw_only=True)
class DataOrigin(Part):
    """Which images a network was trained on."""

    name: str
    source: str
    num_images: dict[str, Count]
    newest_file: str | None
    carried_by: str | None
    sha256: dict[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Origin(Part):
    """Where a package comes from; None: not stated."""

    name: Name | None = None
    version: str | None = None
    licence: str | None = None
    commit: str | None = None
    changed_files: list[str] | None = None
    data: DataOrigin | None = None


@dataclass(frozen=True, kw_only=True)
class PackageManifest(Part):
    """manifest.json."""

    name: Name
    files: dict[str, PackagedFile]
    gates: dict[str, dict[str, Any]]
    """Read by ``pipeline.export.folder.read_gate``."""
    num_steps: NumSteps
    image_size: Size
    input: str
    task: str = "classification"
    signature: dict[str, Any] | None = None
    """Read by ``pipeline.runtimes.engine_file.read_signature``; None: a package of version 0.1."""
    warnings: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    about: Origin = field(default_factory=Origin)

    @classmethod
    def check(cls, content: Mapping[str, Any]) -> None:
        """Look at the names of files, each of another precision, and at the package's own."""
        if content["name"] == RESERVED:
            raise ValueError(f"name: got {RESERVED!r}, expected another; a path of servers is called so")
        for name in content["files"]:
            expected = is_name(name)
            if expected is not None:
                raise ValueError(f"files: got {shown(name)}, expected {expected}")
        precisions = [entry["precision"] for entry in content["files"].values()]
        if len(set(precisions)) < len(precisions):
            raise ValueError(f"files: got several files of one precision: {', '.join(precisions)}")


@dataclass(frozen=True, kw_only=True)
class ClassTable(Part):
    """labels.json."""

    labels: list[str]
    category_ids: list[int] | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.labels) <= MOST_CLASSES:
            raise ValueError(f"labels: got {len(self.labels)} names, expected 1 to {MOST_CLASSES}")
        longest = max(map(len, self.labels))
        if longest > LONGEST_LABEL:
            raise ValueError(f"labels: got a name of {longest:,} characters, expected at most {LONGEST_LABEL:,}")
        ids = self.category_ids
        if ids is not None and (len(ids) != len(self.labels) or len(set(ids)) < len(ids)):
            count = len(self.labels)
            raise ValueError(f"category_ids: one of its own is needed for each of {count} names, got {shown(ids)}")

    def classes(self) -> Classes:
        """Return what can be seen."""
        return Classes(tuple(self.labels), None if self.category_ids is None else tuple(self.category_ids))


@dataclass(frozen=True, kw_only=True)
class TensorOfFile(Part):
    """An input or output of a network."""

    name: str
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Preprocessing(Part):
    """preprocessing.json; what a task demands of it, beside this, it says itself."""

    input: TensorOfFile
    image_size: Size


@dataclass(frozen=True, kw_only=True)
class AnyObject(Part):
    """A file that is for people, and other programs: any object of JSON."""


@dataclass(frozen=True, kw_only=True)
class EngineSettingsFile(Part):
    """engine.json."""

    @classmethod
    def check(cls, content: Mapping[str, Any]) -> None:
        """Look whether engines can be built so."""
        read_settings(content, {})


def read_settings(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> EngineSettings:
    """Return the ``content`` of engine.json with ``overrides``; raises ValueError where a setting is none."""
    own = {name: value for name, value in content.items() if name != "precisions"}
    return read_plain(EngineSettings, own | dict(overrides))  # version 0.1 says there what its stage built


CLASS_NAMES_FILE = "labels.json"
CLASS_NAMES_KEY = "labels"
CATEGORY_IDS_KEY = "category_ids"
PREPROCESSING_FILE = "preprocessing.json"
ENGINE_SETTINGS = "engine.json"
"""The settings with which ``build-engine`` builds, unless it is told otherwise."""
SCHEMA: Mapping[str, type[Part]] = {
    MANIFEST: PackageManifest,
    CLASS_NAMES_FILE: ClassTable,
    PREPROCESSING_FILE: Preprocessing,
    ENGINE_SETTINGS: EngineSettingsFile,
    "calibration.json": CalibrationRecord,
    "metrics.json": AnyObject,
    "tradeoff.json": AnyObject,
}
"""From each JSON file of a package to what it holds."""
LARGEST = 2**26
"""Bytes of one of them."""


def read_described(folder: Path, name: str, sums: Mapping[str, str]) -> Json:
    """Return the content of the JSON file ``name`` of ``SCHEMA``, which must be as its sum says.

    Raises:
        UserError: it is not, and then a line names each damaged file of the package; or it does not hold what it must.
    """
    path = folder / name
    data = None if place_of(folder, name) is None else read_plain_file(path, most=LARGEST)
    if data is None or hashlib.sha256(data).hexdigest() != sums.get(name):
        raise UserError("\n".join(say_again(damaged_files(folder, {*sums, name}, sums))))
    with as_described(path):
        content = parse_json(data)
        read_plain(SCHEMA[name], content)
    return content


@contextlib.contextmanager
def as_described(path: Path) -> Iterator[None]:
    """Turn what wrong content of the file ``path`` leads to into a UserError that names it."""
    with user_error(f"{path}: not as a package has it", advice=AGAIN):
        yield
