"""Networks rebuilt from their descriptions: the table of kinds, and what stages read of earlier ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from models.core.table import Entry, Table
from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json, read_json
from pipeline.networks.programs import PROGRAMS
from pipeline.networks.spec import DESCRIPTION, WEIGHTS, NetworkSpec
from pipeline.networks.weights import load_state, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "adapter"
"""Folder beside a student's weights for what was trained with it and does not deploy."""
PART = r"^(backbone\.parts\.\d+|head)\."
EARLIER_NAME = ("trunk.", "backbone.")
"""What version 0.1 called the backbone in the names of weights, and what it is called."""


@dataclass(frozen=True, kw_only=True)
class NetworkKind(Entry):
    """A kind of network in the table."""

    load: Callable[[], Callable[..., nn.Module]]
    teaches: bool = False
    """Whether such a network can teach: it goes from images to outputs without sampling steps."""


def _classifier() -> Callable[..., nn.Module]:
    from models.factory import build_classifier

    return build_classifier


def _layered_classifier() -> Callable[..., nn.Module]:
    from models.students import build_layered_classifier

    return build_layered_classifier


def _flow_student() -> Callable[..., nn.Module]:
    from models.students import build_flow_student

    return build_flow_student


def _feature_flow_student() -> Callable[..., nn.Module]:
    from models.students import build_feature_flow_student

    return build_feature_flow_student


def _feature_and_logit_flow_student() -> Callable[..., nn.Module]:
    from models.students import build_feature_flow_student

    return partial(build_feature_flow_student, to_logits=True)


def _feature_transforms() -> Callable[..., nn.Module]:
    from models.layers.shape_transform import build_feature_transforms

    return build_feature_transforms


def _logit_flow() -> Callable[..., nn.Module]:
    from models.flow import build_logit_flow

    return build_logit_flow


def _detector() -> Callable[..., nn.Module]:
    from models.detection.building import build_detector

    return build_detector


def _flow_detector() -> Callable[..., nn.Module]:
    from models.detection.flow_detector import build_flow_detector

    return build_flow_detector


def _layered_detector() -> Callable[..., nn.Module]:
    from models.detection.flow_detector import build_layered_detector

    return build_layered_detector


NETWORK_KINDS = Table(
    "network",
    NetworkKind(name="classifier", description="backbone and head", load=_classifier, teaches=True),
    NetworkKind(
        name="layered_classifier", description="with a meta-encoder as layers", load=_layered_classifier, teaches=True
    ),
    *(
        NetworkKind(name=entry.kind, description=entry.description, load=entry.load, teaches=True)
        for entry in PROGRAMS.values()
    ),
    NetworkKind(name="detector", description="backbone, pyramid and head", load=_detector, teaches=True),
    NetworkKind(
        name="layered_detector",
        description="with meta-encoders as layers at its levels",
        load=_layered_detector,
        teaches=True,
    ),
    NetworkKind(name="flow_detector", description="flows at the levels of the pyramid", load=_flow_detector),
    NetworkKind(name="flow_student", description="a flow at the end of the backbone", load=_flow_student),
    NetworkKind(name="feature_flow_student", description="flows at stages", load=_feature_flow_student),
    NetworkKind(
        name="feature_and_logit_flow_student",
        description="flows at stages and at the end",
        load=_feature_and_logit_flow_student,
    ),
    NetworkKind(name="feature_transforms", description="from stages to the teacher's", load=_feature_transforms),
    NetworkKind(name="logit_flow", description="a flow for a backbone that stands elsewhere", load=_logit_flow),
)


def build_network(spec: NetworkSpec) -> nn.Module:
    """Return the network of ``spec`` with random weights.

    Raises:
        ValueError: the kind, or a name in its arguments, is unknown.
    """
    return NETWORK_KINDS[spec.kind].load()(**spec.arguments)


def load_network(folder: Path) -> tuple[nn.Module, Json]:
    """Return the network in ``folder``, on the CPU in eval mode, and its description.

    Raises:
        UserError: the files are missing, damaged or do not fit each other.
    """
    about = read_json(folder / DESCRIPTION)
    try:
        spec = _spec(about["kind"], about["arguments"])
        with user_error(str(folder / DESCRIPTION)):
            require_own_code(spec, about.get("own_code"))
        network = build_network(spec)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION}: describes no network ({error!r}); run the stage again") from error
    weights = read_weights(folder / WEIGHTS).tensors
    weights = {name.replace(*EARLIER_NAME): tensor for name, tensor in weights.items()}
    load_state(network, recut(weights, network), folder / WEIGHTS)
    return network.eval(), about


def require_own_code(spec: NetworkSpec, digest: str | None) -> None:
    """Raise ValueError where the user's code that makes the network of ``spec`` is not that of ``digest`` any more."""
    if digest is not None and spec.own_code() != digest:
        raise ValueError(
            f"the code of {spec.arguments['backbone']!r} has changed since these weights were made; "
            "make them anew (dvc repro), or bring the code back"
        )


def recut(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return ``weights`` of a backbone that an earlier version has cut elsewhere, under the names of ``network``.

    Behind the name of its part a weight is called what the network's author called it, wherever the cut lies.
    """
    own = {re.sub(PART, "", name): name for name in network.state_dict()}
    if weights.keys() == set(own.values()) or len(own) != len(network.state_dict()):
        return weights
    return {own.get(re.sub(PART, "", name), name): tensor for name, tensor in weights.items()}


def _spec(kind: str, arguments: Json) -> NetworkSpec:
    """Return the specification, under the names of today, of a network that this or an earlier version has saved."""
    return NetworkSpec("layered_classifier" if kind == "classifier" and "layers" in arguments else kind, arguments)


def load_adapter(folder: Path) -> nn.Module | None:
    """Return what was trained beside the student in ``folder`` and does not deploy; None where nothing was.

    Raises:
        UserError: its files are damaged or do not fit each other.
    """
    return load_network(folder / ADAPTER)[0] if (folder / ADAPTER).is_dir() else None
