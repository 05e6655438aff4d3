"""What stands beside an engine's file and says what it is: the sidecar."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.core.plain import Part, at_least, read_plain, shown
from pipeline.core.plain_file import read_plain_file
from pipeline.core.signature import Signature, read_tensor_spec
from pipeline.core.strict_json import parse_json

LARGEST = 2**24
"""Bytes of a sidecar."""
LARGEST_PLAN = 2**34
"""Bytes of an engine."""


@dataclass(frozen=True, kw_only=True)
class BatchSizes(Part):
    """The batches that an engine takes."""

    min: Annotated[int, at_least(1)]
    opt: Annotated[int, at_least(1)]
    max: Annotated[int, at_least(1)]


@dataclass(frozen=True, kw_only=True)
class Sidecar(Part):
    """What stands beside an engine's file; written by ``pipeline.export.tensorrt.engines``."""

    plan: str
    plan_sha256: str
    onnx: str
    onnx_sha256: str
    precision: str
    batch: BatchSizes

    @classmethod
    def check(cls, content: Mapping[str, Any]) -> None:
        """Look at what the engine takes and returns."""
        read_signature(content)


def sidecar(plan: Path) -> Path:
    """Return the file that says what the engine in the file ``plan`` is."""
    return plan.with_name(f"{plan.name}.json")


def read_sidecar(plan: Path, *, links: bool = False) -> Json:
    """Return what stands beside the engine in the file ``plan``.

    Args:
        links: whether it may be a link, as files of a DVC cache can be.

    Raises:
        UserError: it is missing or damaged.
    """
    path = sidecar(plan)
    try:
        content = parse_json(read_plain_file(path, most=LARGEST, links=links))
        read_plain(Sidecar, content)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}; build the engine again") from error
    return content


def describe_signature(signature: Signature) -> dict[str, Any]:
    """Return the fields of a sidecar that say what its engine takes and returns."""
    return {"input": signature.input.describe(), "outputs": [output.describe() for output in signature.outputs]}


def read_signature(description: Mapping[str, Any]) -> Signature:
    """Return what the engine of a sidecar's ``description`` takes and returns.

    Sidecars of version 0.1 have their one output under ``output``.

    Raises:
        ValueError: the description is no sidecar's.
    """
    described = description["outputs"] if "outputs" in description else [description.get("output")]
    outputs = tuple(read_tensor_spec(output) for output in described) if isinstance(described, list) else ()
    if not outputs or len({output.name for output in outputs}) < len(outputs):
        raise ValueError(f"a network has outputs, each with a name of its own; got {shown(described)}")
    return Signature(read_tensor_spec(description.get("input")), outputs)
