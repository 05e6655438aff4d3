"""What a file of weights holds and which of the known backbones it fits, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision import models

from models.backbones.catalog import SMALL_IMAGE_BACKBONES
from models.backbones.torchvision_models import torchvision_names
from models.factory import build_classifier
from pipeline.core.printable import printable
from pipeline.core.text_table import aligned
from pipeline.networks.checkpoint import Checkpoint, StateDict
from pipeline.networks.fitting import COUNTER, Fit, fit, is_enough

IMAGENET = 1000
"""Classes of the published networks."""
WIDEST = 4100
"""Inputs, at most, of their classifiers."""
TOLERANCE = 0.02
"""Share of its parameters by which a file may differ from a published network that it is compared with."""
LISTED = 12
"""Lines of each kind that are shown."""
ARCHITECTURES = re.compile(r"(^|\.)(arch|architecture|model|model_name|backbone|name)$")
"""Facts that say what network it is."""
HEADS = re.compile(r"(head|fc|classifier|linear|logits|output)")
STATISTICS = ("running_mean", "running_var", COUNTER)


class Fitting(NamedTuple):
    """A backbone that a state dict fits."""

    backbone: str
    state: StateDict
    found: Fit
    num_classes: int | None
    """Of the classifier in the file; None: it has none that fits."""


def describe_content(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what the file is and holds, line by line."""
    size = checkpoint.path.stat().st_size
    yield f"{printable(checkpoint.path)}: {checkpoint.kind.value}, {size / 2**20:.1f} MiB"
    shown = [one for one in checkpoint.state_dicts if not one.is_joined]
    rows = [
        [printable(one.entry) or "(all of it)", f"{len(one.tensors)}", f"{one.num_values:,}", _dtypes(one.tensors)]
        for one in shown[:LISTED]
    ]
    if rows:
        yield from aligned(["state dict", "tensors", "values", "of type"], rows)
    for where, kind in checkpoint.modules.items():
        yield f"{printable(where) or 'all of it'}: a whole pickled module, {printable(kind)}, which is not loaded"
    for where, count in checkpoint.unnamed.items():
        yield f"{printable(where)}: {count} tensors without names"
    for name, value in list(checkpoint.facts.items())[:LISTED]:
        yield f"{printable(name)}: {printable(value)[:100]}"
    if len(checkpoint.facts) > LISTED:
        yield f"and {len(checkpoint.facts) - LISTED} more numbers and texts"
    if checkpoint.not_loaded:
        yield f"names, none of them loaded: {', '.join(map(printable, checkpoint.not_loaded[:LISTED]))}"


def fitting_backbones(checkpoint: Checkpoint) -> Iterator[Fitting]:
    """Yield the known backbones that the state dicts of ``checkpoint`` fit, by names and shapes alone.

    All networks for small images are compared; of torchvision's those of about as many parameters; of timm's those that
    the file names.
    """
    for state in checkpoint.state_dicts:
        head = guess_head(state.tensors)
        num_classes = None if head is None else state.tensors[head].shape[0]
        any_fits = False
        for name in _candidates(checkpoint, state, head):
            network = _shell(name, num_classes or 2)
            found = None if network is None else fit(network, state.tensors)
            if network is None or found is None or not is_enough(found, network, state.tensors, new_head=True):
                continue
            any_fits = True
            heads = [state.tensors[theirs].shape[0] for theirs in found.other_shape.values()]
            yield Fitting(name, state, found, heads[0] if heads else None if found.missing else num_classes)
        if any_fits:
            return


def _shell(name: str, num_classes: int) -> nn.Module | None:
    """Return the backbone ``name`` as a classifier, without numbers where it can be built so; None: it is unknown."""
    arguments: dict[str, Any] = {"backbone": name, "num_classes": num_classes, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return build_classifier(**arguments)
        except RuntimeError:  # some compute with tensors while they are built
            continue
        except ValueError:  # what the file calls its network is none that is known here
            return None
    return None


def guess_head(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the weights of the last layer that is called like a classifier; None: there is none."""
    named = [
        name
        for name, value in tensors.items()
        if value.ndim in {2, 4} and value.shape[0] > 1 and name.endswith("weight") and HEADS.search(name)
    ]
    return named[-1] if named else None


def _candidates(checkpoint: Checkpoint, state: StateDict, head: str | None) -> list[str]:
    said = [str(value) for name, value in checkpoint.facts.items() if ARCHITECTURES.search(name)]
    size = sum(value.numel() for name, value in state.tensors.items() if not name.endswith(STATISTICS))
    inputs = 0
    if head is not None:
        size -= state.tensors[head].numel() + state.tensors[head].shape[0]
        inputs = state.tensors[head].shape[1]
    near = [name for name in sorted(torchvision_names()) if _is_near(name, size, inputs)]
    by_name = [name for name in said if name in torchvision_names()] + [f"timm:{name}" for name in said]
    return list(dict.fromkeys([*by_name, *SMALL_IMAGE_BACKBONES, *near]))


def _is_near(name: str, size: int, inputs: int) -> bool:
    """Return whether torchvision's network ``name`` has about ``size`` parameters, its classifier left out.

    Args:
        inputs: of that classifier; 0: unknown.
    """
    entries = models.get_model_weights(name).__members__.values()
    published = int(next((entry.meta["num_params"] for entry in entries), 0))
    if inputs:
        return abs(published - IMAGENET * (inputs + 1) - size) <= TOLERANCE * published
    return 0 <= published - size <= IMAGENET * WIDEST


def describe_fitting(fitting: Fitting, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what is known of a backbone that fits, and the lines of params.yaml that take the weights."""
    classes = "without a classifier" if fitting.num_classes is None else f"{fitting.num_classes} classes"
    prefix = f", names begin with {printable(fitting.found.prefix)}" if fitting.found.prefix else ""
    entry = f", {printable(fitting.state.entry)}" if fitting.state.entry else ""
    yield f"fits {fitting.backbone}: {classes}{entry}{prefix}"
    yield "train_teacher:"
    yield f"  backbone: {fitting.backbone}"
    yield f"  weights: {printable(checkpoint.path)}"
    if len([one for one in checkpoint.state_dicts if not one.is_joined]) > 1 and fitting.state.entry:
        yield f"  weights_entry: {printable(fitting.state.entry)}"


def _dtypes(tensors: Mapping[str, Tensor]) -> str:
    counts = Counter(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    return ", ".join(name for name, _ in counts.most_common())
