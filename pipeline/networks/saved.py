"""What later stages read of earlier ones: networks rebuilt from their description, and the calibrated steps."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from models.choice import choose
from models.factory import build_classifier
from models.flow import build_logit_flow
from models.shape_transform import build_feature_transforms
from models.students import build_feature_flow_student, build_flow_student
from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json
from pipeline.networks.weights import DESCRIPTION, WEIGHTS, load_state, read_weights

ADAPTER = "helper"
"""Folder beside a student's weights for what was trained with it and does not deploy."""

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "classifier": build_classifier,
    "feature_flow_student": build_feature_flow_student,
    "feature_transforms": build_feature_transforms,
    "flow_student": build_flow_student,
    "logit_flow": build_logit_flow,
}


def build_network(kind: str, arguments: Json) -> nn.Module:
    """Return the network ``kind`` (a key of ``BUILDERS``) built from ``arguments``.

    Raises:
        ValueError: a name in ``arguments`` is unknown.
    """
    return choose(BUILDERS, kind, kind="network")(**arguments)


def load_network(folder: Path) -> tuple[nn.Module, Json]:
    """Return the network in ``folder``, on the CPU in eval mode, and its description.

    Raises:
        UserError: the files are missing, damaged or do not fit each other.
    """
    about = read_json(folder / DESCRIPTION)
    try:
        network = build_network(about["kind"], about["arguments"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / DESCRIPTION}: describes no network ({error!r}); run the stage again") from error
    load_state(network, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return network.eval(), about


def load_adapter(folder: Path) -> nn.Module | None:
    """Return what was trained beside the student in ``folder`` and does not deploy; None where nothing was.

    Raises:
        UserError: its files are damaged or do not fit each other.
    """
    return load_network(folder / ADAPTER)[0] if (folder / ADAPTER).is_dir() else None


def read_num_steps(folder: Path) -> int | None:
    """Return the calibrated number of steps; None for a student without sampling steps.

    Raises:
        UserError: calibration.json is missing or damaged.
    """
    path = folder / "calibration.json"
    try:
        num_steps: int | None = read_json(path)["num_steps"]
    except KeyError as error:
        raise UserError(f"{path}: has no num_steps; run calibrate_steps again") from error
    return num_steps
