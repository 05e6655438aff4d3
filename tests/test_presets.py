"""Every preset: parsed, its networks built at its image size, its combination accepted."""

from pathlib import Path

import pytest
import torch
from torch import nn

from models.students import SampledStudent
from pipeline.comparison.config import changed_params, load_comparison
from pipeline.data.dataset import DataInfo
from pipeline.distillation.build import build_objective
from pipeline.distillation.network_specs import build_student, adapter_spec, student_spec
from pipeline.networks.saved import build_network
from pipeline.params.loading import load_params
from pipeline.params.presets import list_presets
from pipeline.training.teacher import teacher_arguments
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
        recipe = student_spec(settings, info)
        student = build_student(recipe, info.image_size)
        assert isinstance(student, SampledStudent)
        adapter_network_spec = adapter_spec(settings, info, student, teacher)  # type: ignore[arg-type]
        adapter = build_network(*adapter_network_spec) if adapter_network_spec else None
        assert build_objective(settings, student, adapter, teacher, label_smoothing=0.0)  # type: ignore[arg-type]
        assert (adapter is not None) == (transfer == "features")
        assert_smaller(student, teacher)


def assert_smaller(student: nn.Module, teacher: nn.Module) -> None:
    sizes = [sum(p.numel() for p in network.backbone.parameters()) for network in (student, teacher)]  # type: ignore[union-attr, operator]
    assert sizes[0] < sizes[1], "the student's backbone is the smaller one"


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
