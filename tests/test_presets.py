"""Every preset: parsed, its networks built at its image size, its combination accepted."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.flow_student import SampledStudent
from pipeline.artifacts import build_network
from pipeline.comparison.config import changed_params, load_comparison
from pipeline.data.store import DataInfo
from pipeline.distillation import build_objective
from pipeline.params_file import load_params
from pipeline.presets import list_presets
from pipeline.recipes import build_student, helper_recipe, student_recipe
from pipeline.teacher import teacher_arguments
from tests.helpers import ROOT

PRESETS = sorted(list_presets(ROOT / "presets"))
SIZES = {"digits": (8, 8), "imagenet": (224, 224)}
"""Image sizes by the first part of the preset's name; 32 x 32 for the others."""


def data_of(name: str) -> DataInfo:
    return DataInfo(
        ("a", "b", "c"), SIZES.get(name.partition("-")[0], (32, 32)), (0.5,) * 3, (0.25,) * 3, "none", "packed"
    )


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("transfer", ["logits", "features"])
def test_the_networks_of_every_preset_can_be_built_and_fit_each_other(name: str, transfer: str) -> None:
    params = load_params(ROOT / f"presets/{name}.yaml")
    info = data_of(name)
    settings = params.distill_student.model_dump() | {"transfer": transfer}
    settings["loss"] = "pkd" if transfer == "features" else settings["loss"]
    with torch.no_grad():
        teacher = build_network("classifier", teacher_arguments(params.train_teacher.backbone, info))
        recipe = student_recipe(settings, info)
        student = build_student(recipe, info.image_size)
        assert isinstance(student, SampledStudent)
        helping = helper_recipe(settings, info, student, teacher)  # type: ignore[arg-type]
        helper = build_network(*helping) if helping else None
        assert build_objective(settings, student, helper, teacher, label_smoothing=0.0)  # type: ignore[arg-type]
        assert (helper is not None) == (transfer == "features")
        assert_smaller(student, teacher)


def assert_smaller(student: nn.Module, teacher: nn.Module) -> None:
    sizes = [sum(p.numel() for p in network.trunk.parameters()) for network in (student, teacher)]  # type: ignore[union-attr, operator]
    assert sizes[0] < sizes[1], "the student's trunk is the smaller one"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/comparisons").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_comparison_is_made_of_valid_parameters(path: Path, tmp_path: Path) -> None:
    comparison = load_comparison(path)
    for method, changes in comparison.methods.items():
        written = tmp_path / "params.yaml"
        written.write_text(changed_params(ROOT / comparison.params, comparison.changes | changes))
        assert load_params(written).distill_student.method in {"none", "metric", "metric_meta"} or "kt" in method


def test_the_usual_cifar_100_pairs_are_there() -> None:
    pairs = {
        (p.train_teacher.backbone, p.distill_student.backbone)
        for p in map(load_params, (ROOT / "presets").glob("cifar100-*"))
    }
    assert {
        ("resnet56", "resnet20"),
        ("resnet32x4", "resnet8x4"),
        ("wrn_40_2", "wrn_16_2"),
        ("cifar_vgg13", "cifar_vgg8"),
    } < pairs
