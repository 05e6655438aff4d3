"""``fmkt inspect-weights``: what is in a file, and which backbones it fits."""

import argparse
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torchvision.models import mobilenet_v3_small, regnet_y_400mf

from models.factory import build_classifier
from stages.__main__ import main
from tests.helpers import refused


def inspect(path: Path) -> Result:
    return CliRunner().invoke(main, ["inspect-weights", str(path)])


def small(backbone: str, num_classes: int = 7) -> dict[str, torch.Tensor]:
    """Return weights with the names of the CRD protocol."""
    network = build_classifier(backbone=backbone, num_classes=num_classes, mean=(0.5,) * 3, std=(0.5,) * 3)
    state = network.state_dict()
    return {name.replace("head.linear.", "fc.").removeprefix("backbone."): value for name, value in state.items()}


def test_content_facts_and_the_lines_to_paste_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "w.pth.tar"
    state = {f"module.{name}": value for name, value in small("resnet20").items()}
    arguments = argparse.Namespace(lr=0.1, note="a\x1b[1m")
    torch.save({"state_dict": state, "state_dict_ema": state, "epoch": 3, "args": arguments}, path)
    result = inspect(path)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith(f"{path}: PyTorch, as torch.save writes it, ")
    assert [line.split()[:2] for line in lines[3:5]] == [["state_dict_ema", "128"], ["state_dict", "128"]]
    assert "epoch: 3" in lines
    assert r"args.note: a\x1b[1m" in lines
    assert "names, none of them loaded: argparse.Namespace" in lines
    place = lines.index("fits resnet20: 7 classes, state_dict_ema")
    assert lines[place + 1 :] == [
        "train_teacher:",
        "  backbone: resnet20",
        f"  weights: {path}",
        "  weights_entry: state_dict_ema",
    ]


@pytest.mark.parametrize("build", [mobilenet_v3_small, regnet_y_400mf])
def test_torchvisions_networks_are_recognised_without_being_named(build: object, tmp_path: Path) -> None:
    """Regnet cannot be built without numbers."""
    assert callable(build)
    state = build(num_classes=5).state_dict()
    torch.save({f"model.{name}": value for name, value in state.items()}, tmp_path / "w.ckpt")
    result = inspect(tmp_path / "w.ckpt")
    assert result.exit_code == 0, result.output
    fits = [line for line in result.output.splitlines() if line.startswith("fits")]
    assert fits == [f"fits {build.__name__}: 5 classes, names begin with model."]


@pytest.mark.slow
def test_a_backbone_without_a_classifier_is_recognised(tmp_path: Path) -> None:
    state = {name: value for name, value in small("resnet8").items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "w.pth")
    assert "fits resnet8: without a classifier\n" in inspect(tmp_path / "w.pth").output


@pytest.mark.slow
def test_what_fits_nothing_shows_its_names(tmp_path: Path) -> None:
    torch.save({"encoder.q": torch.ones(4, 4), "encoder.k": torch.ones(4, 4)}, tmp_path / "w.pth")
    result = inspect(tmp_path / "w.pth")
    assert result.exit_code == 0
    assert result.output.endswith("fits none of the known backbones; its names: encoder.q, encoder.k ...\n")


def test_what_holds_no_weights_is_shown_or_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    result = inspect(tmp_path / "w.pth")
    assert result.exit_code == 0
    assert "all of it: a whole pickled module, torch.nn.modules.linear.Linear, which is not loaded" in result.output
    torch.save({"ema": {"shadow_params": [torch.ones(2, 2)] * 3}}, tmp_path / "w.pth")
    assert "ema.shadow_params: 3 tensors without names" in inspect(tmp_path / "w.pth").output
    refused(inspect(tmp_path / "missing.pth"), "missing.pth", "no such file")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    refused(inspect(tmp_path / "w.h5"), "HDF5, as Keras")
