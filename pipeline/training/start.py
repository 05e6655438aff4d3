"""What a network starts from: random weights, or given ones with their normalisation."""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from models.meta_encoder import LayerEncoder, MetaEncoder
from pipeline.core.distributed import is_main
from pipeline.core.errors import UserError
from pipeline.core.files import Json, sha256
from pipeline.data.dataset import DataInfo
from pipeline.networks.given_weights import GivenWeights, Statistics
from pipeline.networks.origins import find_weights
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import Weights, load_weights, put_weights
from pipeline.tasks.training import TaskTraining
from pipeline.training.fine_tuning import TunedBackbone
from pipeline.training.network_settings import TrainedNetwork
from pipeline.training.objective import Objective
from pipeline.training.settings import FineTuning

logger = logging.getLogger(__name__)

Build = Callable[[NetworkSpec], nn.Module]
"""From a spec to its network with random weights."""


class Start(NamedTuple):
    """What a network starts from."""

    info: DataInfo
    """The data, with the normalisation that the network has."""
    given: GivenWeights | None
    """None: random weights."""

    @property
    def files(self) -> list[Path]:
        """Return the user's files that the network starts from."""
        return [] if self.given is None else self.given.files

    def describe(self) -> Json:
        """Return what a network's description and report say of it; nothing of random weights."""
        if self.given is None:
            return {}
        digest = {} if self.given.file is None else {"started_from_sha256": sha256(self.given.file)}
        return {"started_from": self.given.title, **digest}


def find_start(settings: TrainedNetwork, info: DataInfo, *, section: str, whole: Sequence[str] = ()) -> Start:
    """Return what the network of the section ``section`` starts from, on the data ``info``; reads no weights yet.

    Its normalisation is the one that is set; else that of the given weights, where known; else that of the images.

    Args:
        whole: what libraries may call the whole network.

    Raises:
        UserError: there are no such weights.
    """
    given = None
    if settings.weights is not None:
        key = f"{section}.weights"
        given = find_weights(settings.backbone, settings.weights, entry=settings.weights_entry, key=key, whole=whole)
    own = Statistics([*info.mean], [*info.std])
    if settings.mean is not None and settings.std is not None:
        found, whose = Statistics([*settings.mean], [*settings.std]), f"{section}.mean and std"
    elif given is not None and given.statistics is not None:
        found, whose = given.statistics, "the weights"
    else:
        found, whose = own, "the training images"
    if given is not None and is_main():
        logger.info("%s: images are normalised by the mean and std of %s", section, whose)
    return Start(dataclasses.replace(info, mean=tuple(found.mean), std=tuple(found.std)), given)


def load_start(
    network: nn.Module,
    start: Start,
    settings: TrainedNetwork,
    *,
    section: str,
    task: TaskTraining,
    may_replace_head: bool = True,
    another_way: str = "",
) -> frozenset[str]:
    """Put the weights that are given, if any are, into ``network``; an output layer of other classes stays as it is.

    Returns the names of the tensors that were given.

    Args:
        another_way: what helps besides training where the classes of the weights are others, for the message.
        may_replace_head: false where the classes of the weights are known, and an output layer of others is a fault.

    Raises:
        UserError: they cannot be had or do not fit; or, where nothing is trained, their classes are others.
    """
    if start.given is None:
        return frozenset()
    weights, trains = start.given.read(), settings.training.epochs > 0 and may_replace_head
    try:
        weights = task.choose_outputs(weights, start.info)
    except ValueError as error:
        if not trains:
            raise UserError(f"{section}.weights: {error}") from error
        weights = weights._replace(notes=(*weights.notes, f"{error}: its outputs are learnt anew"))
    try:
        loaded = put_weights(network, weights, new_head=trains)
    except UserError as error:
        way_on = ""
        if may_replace_head and not trains and _fits_but_for_head(network, weights):
            way_on = f"; with {section}.training.epochs above 0 an output layer of your classes is learnt{another_way}"
        raise UserError(f"{section}.weights: {error}{way_on}") from error
    if is_main():
        logger.info("%s starts from %s", section, start.given.title)
        for line in (*weights.notes, *loaded.lines):
            logger.info("%s.weights: %s", section, line)
    return loaded.names


def _fits_but_for_head(network: nn.Module, weights: Weights) -> bool:
    """Return whether ``weights``, which ``network`` may take for that, are of it and of other classes."""
    try:
        load_weights(network, weights, new_head=True)
    except UserError:
        return False
    return True


def backbone_names(network: nn.Module, spec: NetworkSpec, build: Build, outputs: Mapping[str, int]) -> set[str]:
    """Return the names of the tensors of ``network`` that given weights bring, whatever they were trained on.

    These are all but the output layer, which is what has another shape for another number of classes, and the
    meta-encoders of flows and layers.

    Args:
        build: returns the network of a spec like ``spec``.
        outputs: the arguments of ``spec`` that say how many outputs there are.
    """
    with torch.random.fork_rng(devices=[]):
        other = build(NetworkSpec(spec.kind, spec.arguments | {name: n + 1 for name, n in outputs.items()}))
    shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
    added = tuple(
        f"{name}." for name, module in network.named_modules() if isinstance(module, MetaEncoder | LayerEncoder)
    )
    return {
        name
        for name, tensor in network.state_dict().items()
        if tensor.shape == shapes[name] and not name.startswith(added)
    }


def tune_backbone(
    objective: Objective,
    spec: NetworkSpec,
    build: Build,
    start: Start,
    loaded: Collection[str],
    settings: FineTuning,
    task: TaskTraining,
) -> None:
    """Let ``objective`` treat the backbone of its student, made from ``spec``, as ``settings`` say, if it was given.

    By default they ask for nothing, and no second network is built to find it.

    Args:
        build: returns the network of a spec like ``spec``.
        loaded: the names of the tensors that were given.
    """
    if start.given is None or settings == FineTuning():
        return
    names = backbone_names(objective.student, spec, build, task.output_arguments(start.info)).intersection(loaded)
    objective.tuned = TunedBackbone(objective.student, names, settings)
