"""Networks of the user's own: a function in a Python file, ``python:FILE.py:FUNCTION``."""

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .backbone import BackboneAndHead, cannot_take
from .cutting import PROBE_SIZE, cut_classifier
from .local_imports import file_and_function
from .source_imports import SourceLoader, imports_from
from .tracing import FAULTS, first_line

_BESIDE: dict[str, str] = {}
"""The modules that files of the user's have imported from beside them, and from which folder."""


def cut_python_classifier(name: str, num_classes: int, image_size: Sequence[int] | None) -> BackboneAndHead:
    """Return what the function of ``name`` (``FILE.py:FUNCTION``) returns, cut into its stages and its head.

    Raises:
        ValueError: the file or the function is not there, fails, or returns no classifier of ``num_classes``.
    """
    classifier = build_python_classifier(name, num_classes, image_size)
    if image_size is not None:
        _check_logits(name, classifier, num_classes, image_size)
    return cut_classifier(classifier, image_size=image_size)


def build_python_classifier(name: str, num_classes: int, image_size: Sequence[int] | None = None) -> nn.Module:
    """Return what the function of ``name`` (``FILE.py:FUNCTION``) returns.

    The function is called with the number of classes and, where it has such a parameter, ``image_size`` (H, W); where
    that is not known yet and has no default, a usual one stands for it. The file may import others that lie beside it.

    Raises:
        ValueError: the file or the function is not there, fails, or returns no module.
    """
    path, function = file_and_function(name)
    with _own_faults(path):
        module = _load(path)
    build = getattr(module, function, None)
    if not callable(build):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ValueError(  # noqa: TRY004  (what is wrong is the file)
            f"{path}: has no function {function!r}; it has {', '.join(own) or 'none'}"
        )
    with _own_faults(path):
        network = _call(build, num_classes, image_size)
    if not isinstance(network, nn.Module):
        got = type(network).__name__
        raise ValueError(f"{path}: {function}({num_classes}) returns {got}, not a torch.nn.Module")  # noqa: TRY004
    return network


def _load(path: Path) -> object:
    loader = SourceLoader(f"network_in_{path.stem}", str(path))
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and the like look their module up
    loader.exec_module(module)
    return module


def _call(build: Callable[..., Any], num_classes: int, image_size: Sequence[int] | None) -> object:
    try:
        size = inspect.signature(build).parameters.get("image_size")
    except ValueError:  # of a function that is not written in Python
        size = None
    if size is None or (image_size is None and size.default is not inspect.Parameter.empty):
        return build(num_classes)
    return build(num_classes, image_size=image_size or PROBE_SIZE)


@contextlib.contextmanager
def _own_faults(path: Path) -> Iterator[None]:
    """Turn whatever the code of ``path`` raises into a ValueError with the place; let it import what lies beside."""
    folder = str(path.resolve().parent)
    for name in [name for name, other in _BESIDE.items() if other != folder]:
        sys.modules.pop(name, None)  # another file's, which may be called the same
        del _BESIDE[name]
    before = set(sys.modules)
    try:
        with imports_from(folder):
            yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
        place = f"{own[-1].filename}, line {own[-1].lineno}" if own else str(path)
        if isinstance(error, SyntaxError):  # is in no frame yet
            place = f"{error.filename}, line {error.lineno}"
        raise ValueError(f"{place}: {type(error).__name__}: {first_line(error)}") from error
    finally:
        for name in set(sys.modules) - before:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{folder}/"):
                _BESIDE[name] = folder


def _check_logits(name: str, classifier: nn.Module, num_classes: int, image_size: Sequence[int]) -> None:
    try:
        with torch.no_grad():
            logits: object = classifier.eval()(torch.zeros(1, 3, *image_size))
    except FAULTS as error:
        raise ValueError(f"{name} {cannot_take(image_size, first_line(error))}") from error
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (1, num_classes):
        raise ValueError(
            f"{name} returns {shape} for one image, not logits (1, {num_classes}); "
            "build its classifier with the number of classes that the function is given"
        )
