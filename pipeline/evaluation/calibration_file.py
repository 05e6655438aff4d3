"""The calibrated number of sampling steps, as later stages read it."""

from pathlib import Path

from torch import nn

from models.deploy import DeployableNetwork, with_num_steps
from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.core.records import CalibrationRecord, read_record
from pipeline.networks.saved import load_network

CALIBRATION = "calibration.json"


def read_num_steps(folder: Path) -> int | None:
    """Return the calibrated number of steps; None for a student without sampling steps.

    Raises:
        UserError: calibration.json is missing or damaged.
    """
    num_steps: int | None = read_record(folder / CALIBRATION, CalibrationRecord)["num_steps"]
    return num_steps


def load_calibrated(student: Path, calibration: Path) -> tuple[DeployableNetwork, Json]:
    """Return the student in ``student`` with the number of steps in ``calibration``, and the student's description.

    Raises:
        UserError: files are missing or damaged, or the calibration is another student's.
    """
    network, about = load_network(student)
    return calibrated(network, calibration), about


def calibrated(student: nn.Module, calibration: Path) -> DeployableNetwork:
    """Return ``student`` with the number of steps in the folder ``calibration``.

    Raises:
        UserError: calibration.json is missing or damaged, or another student's.
    """
    try:
        return with_num_steps(student, read_num_steps(calibration))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{calibration / CALIBRATION}: {error}; run calibrate_steps again") from error
