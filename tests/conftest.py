"""Fixtures shared by the tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers import write_params

torch.set_num_threads(1)


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the default parameters with changes, e.g. ``{"base.seed": 1}``, to a file."""
    return lambda changes: write_params(tmp_path / "params.yaml", changes)
