"""What stands beside an engine's file and says what it is: the sidecar."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.signature import Signature, read_tensor_spec


def sidecar(plan: Path) -> Path:
    """Return the file that says what the engine in the file ``plan`` is."""
    return plan.with_name(f"{plan.name}.json")


def describe_signature(signature: Signature) -> dict[str, Any]:
    """Return the fields of a sidecar that say what its engine takes and returns."""
    return {"input": signature.input.describe(), "outputs": [output.describe() for output in signature.outputs]}


def read_signature(description: Mapping[str, Any]) -> Signature:
    """Return what the engine of a sidecar's ``description`` takes and returns.

    Sidecars of version 0.1 have their one output under ``output``.

    Raises:
        KeyError, TypeError, ValueError: the description is no sidecar's.
    """
    described = description["outputs"] if "outputs" in description else [description["output"]]
    outputs = tuple(read_tensor_spec(output) for output in described)
    if not outputs or len({output.name for output in outputs}) < len(outputs):
        raise ValueError(f"a network has outputs, each with a name of its own; got {described!r}")
    return Signature(read_tensor_spec(description["input"]), outputs)
