"""The width of meta-encoders keeps students small, and a student larger than its teacher is refused."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.classifier import Classifier
from models.deploy import SampledNetwork
from models.meta_encoder import LayerEncoder
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from models.students import SampledStudent
from pipeline.core.errors import UserError
from pipeline.data.dataset import DataInfo
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.flow_width import ALLOWED, choose_widths, describe_widths, flow_cost
from pipeline.distillation.method import build_student
from pipeline.distillation.methods import METHODS
from pipeline.distillation.pairs import with_pairs
from pipeline.distillation.settings import DistillStudent, Flow
from pipeline.networks.complexity import count_macs
from pipeline.networks.saved import build_network, load_network
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import save_network
from pipeline.params.presets import list_presets, load_preset
from pipeline.params.schema import load_params
from pipeline.preflight.network_checks import check_networks
from pipeline.preflight.sizes import check_student_is_smaller
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.tasks.table import TASKS
from tests.helpers import ROOT, refused
from workbench.bench import Bench, taught_bench

WriteParams = Callable[[dict[str, Any]], Path]
CPU, TASK = torch.device("cpu"), ClassificationTraining()
PRESETS = sorted(list_presets(ROOT / "presets"))
OF_OBJECTS = [
    name for name in PRESETS if SOURCES[load_preset(ROOT / "presets", name).prepare_data.source].task == "detection"
]
SIZES = {"digits": (8, 8), "imagenet": (224, 224), "photos": (128, 128)}
"""Image sizes by the first part of a preset's name; 32 x 32 for the others."""


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("taught"))


def data(size: tuple[int, int] = (32, 32), num_classes: int = 10) -> DataInfo:
    names = tuple(map(str, range(num_classes)))
    return DataInfo("classification", names, size, (0.5,) * 3, (0.25,) * 3, "none", "packed")


def settings_of(method: str = "fm_kt", backbone: str = "resnet8_x0_5", **flow: Any) -> DistillStudent:
    return DistillStudent(method=method, backbone=backbone, flow=Flow(**flow))


def student_of(settings: DistillStudent, info: DataInfo) -> Any:
    return build_student(METHODS[settings.method].load().student(settings, info, TASK), info.image_size)


def spec_of(**changes: Any) -> NetworkSpec:
    flow = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}
    statistics = {"num_classes": 10, "mean": [0.5] * 3, "std": [0.25] * 3}
    arguments = {"backbone": "resnet8_x0_5", **flow, **statistics, **changes}
    return NetworkSpec("feature_flow_student" if "stages" in arguments else "flow_student", arguments)


def ratios(student: SampledStudent, size: tuple[int, int]) -> dict[int, float]:
    """Return how many times the plain student's multiply-adds the deployed one takes, counted on the whole network."""
    plain = count_macs(student.without_flows().eval(), size, CPU)
    forms = {steps: SampledNetwork(student, steps).smallest_form(size) for steps in ALLOWED}
    return {steps: count_macs(form, size, CPU) / plain for steps, form in forms.items()}


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["logits", "features"])
@pytest.mark.parametrize("name", sorted({*PRESETS} - {*OF_OBJECTS}))
def test_every_preset_keeps_its_student_small_and_below_its_teacher(name: str, transfer: str) -> None:
    params, info = load_preset(ROOT / "presets", name), data(SIZES.get(name.partition("-")[0], (32, 32)))
    settings = params.distill_student.model_copy(update={"transfer": transfer})
    assert settings.flow.width == "auto"
    assert not settings.allow_larger
    student = student_of(settings, info)
    found = ratios(student, info.image_size)
    assert 1 < found[1] <= 1.25
    assert 1 < found[4] <= 1.5
    teacher = build_network(TASK.plain_network(params.train_teacher, info, mean=[0.5] * 3, std=[0.25] * 3))
    assert count(student) < count(teacher)
    check_student_is_smaller(params.model_copy(update={"distill_student": settings}))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_OBJECTS)
def test_every_preset_of_objects_keeps_its_student_small_and_below_its_teacher(name: str) -> None:
    """Images are smaller than the preset's, which is quicker and costs the flows and the student as much less."""
    params = load_preset(ROOT / "presets", name)
    side = 64 if name == "detection-digits" else 256
    info, task = replace(data((side, side)), task="detection"), TASKS["detection"].load().training()
    settings = with_pairs(params.distill_student, info, task)
    assert (settings.flow.width, settings.allow_larger) == ("auto", False)
    spec = METHODS[settings.method].load().student(settings, info, task)
    student = build_student(spec, info.image_size)
    assert isinstance(student, SampledStudent)
    found = ratios(student, info.image_size)
    assert 1 < found[1] <= 1.25
    assert 1 < found[4] <= 1.5
    teacher = task.build_plain(task.plain_network(params.train_teacher, info, mean=[0.5] * 3, std=[0.25] * 3))
    assert count(student) < count(teacher)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("backbone", "meta_encoder", "schedule"),
    [
        *(("resnet8", "conv", schedule) for schedule in sorted(SCHEDULES)),
        ("resnet8", "mlp", "rectified"),
        ("cifar_shufflenet_v1", "conv", "rectified"),
        ("mobilenet_v3_small", "conv_mobile", "rectified"),
        ("mobilenet_v3_small", "transformer", "rectified"),
    ],
)
def test_auto_is_the_widest_that_the_budget_allows(backbone: str, meta_encoder: str, schedule: str) -> None:
    size = (48, 32)
    spec = spec_of(backbone=backbone, meta_encoder=meta_encoder, schedule=schedule)
    (width,) = choose_widths(spec, size, "auto")
    assert build(spec, width) <= (1.25, 1.5)
    channels = build_network(spec).flow.transform.linear.in_features  # type: ignore[union-attr]
    if width is None:
        return
    assert width < channels
    assert width % 8 == 0 or width < 8
    wider = width + (8 if width >= 8 else 1)
    first, fourth = build(spec, wider if wider < channels else None)
    assert first > 1.25 or fourth > 1.5


def build(spec: NetworkSpec, width: int | None) -> tuple[float, float]:
    """Return the ratios of the student of ``spec`` in this width."""
    student = build_network(NetworkSpec(spec.kind, spec.arguments | {"width": width}))
    assert isinstance(student, SampledStudent)
    found = ratios(student, (48, 32))
    return found[1], found[4]


@pytest.mark.parametrize("method", ["fm_kt", "ofm_kt", "metric_meta"])
def test_a_method_with_a_meta_encoder_that_deploys_has_the_same_width(method: str) -> None:
    student = student_of(settings_of(method), data((16, 16)))
    encoder = next(m for m in student.modules() if isinstance(m, LayerEncoder)) if "meta" in method else student.flow
    convolutions = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convolutions] == [(32, 16), (16, 16), (16, 16), (16, 32)]


@pytest.mark.parametrize(("width", "expected"), [("auto", 32), ("full", 32), (12, 12)])
def test_a_flow_that_does_not_deploy_is_as_wide_as_the_features_unless_told_otherwise(
    width: int | str, expected: int
) -> None:
    settings, info = settings_of("fm_kt_theta", width=width), data()
    student = student_of(settings, info)
    spec = METHODS["fm_kt_theta"].load().adapter(settings, info, TASK, student, None)
    assert spec is not None
    assert build_network(spec).velocity.width == expected  # type: ignore[union-attr]
    assert isinstance(student, Classifier)


def test_widths_of_several_flows_share_the_budget_and_stand_in_the_description() -> None:
    spec = spec_of(backbone="wrn_16_2", stages=[2, 3])
    widths = choose_widths(spec, (32, 32), "auto")
    assert widths == [32, 64]
    student = build_network(NetworkSpec(spec.kind, spec.arguments | {"widths": widths}))
    assert describe_widths(student) == "32 of 64 and 64 of 128 channels"  # type: ignore[arg-type]
    even = build_network(NetworkSpec(spec.kind, spec.arguments | {"stages": [2, 2], "widths": [16, 16]}))
    assert describe_widths(even) == "16 of 64 channels", "said once of all"  # type: ignore[arg-type]
    assert choose_widths(spec, (32, 32), "full") == [None, None]
    assert choose_widths(spec, (32, 32), 24) == [24, 24]


def test_choosing_a_width_draws_no_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    choose_widths(spec_of(), (32, 32), "auto")
    assert torch.equal(torch.get_rng_state(), before)


def test_what_the_flows_cost_is_said_and_doubted_where_it_is_a_lot() -> None:
    student = student_of(settings_of(width="full"), data((16, 16)))
    cost = flow_cost(student, (16, 16))
    assert cost.ratios == pytest.approx(ratios(student, (16, 16)))
    assert (
        str(cost)
        == f"{cost.ratios[1]:.2f}x of the plain student's multiply-adds at K = 1, {cost.ratios[4]:.2f}x at K = 4"
    )
    assert cost.ratios[4] > 1.5
    doubt = cost.doubt
    assert doubt is not None
    assert doubt.startswith(f"distill_student.flow.width: the student takes {cost}; auto keeps it within 1.25x of ")
    assert flow_cost(student_of(settings_of(), data((16, 16))), (16, 16)).doubt is None


def test_where_no_width_is_small_enough_the_ways_out_are_named() -> None:
    with pytest.raises(UserError, match=r"^distill_student.flow.width: auto finds none.*conv_mobile.* fm_kt_theta w"):
        choose_widths(spec_of(backbone="resnet8_x0_25", meta_encoder="transformer"), (32, 32), "auto")
    with pytest.raises(UserError, match=r"^distill_student.backbone: unknown backbone 'resnet9'"):
        choose_widths(spec_of(backbone="resnet9"), (32, 32), "auto")


@pytest.mark.parametrize("width", [0, -8, 1.5, "wide", None, True])
def test_a_width_is_a_number_of_channels_or_one_of_two_words(width: object) -> None:
    with pytest.raises(ValueError, match="width"):
        Flow(width=width)


@pytest.mark.parametrize("meta_encoder", sorted(META_ENCODERS))
def test_a_student_that_was_saved_before_there_were_widths_is_loaded_as_it_was(
    meta_encoder: str, tmp_path: Path
) -> None:
    """Its description says no width, and its weights have no projections."""
    for number, spec in enumerate((spec_of(meta_encoder=meta_encoder), spec_of(stages=[1, 3]))):
        student = build_network(spec)
        assert not any("project_in.weight" in n and "velocity.project" in n for n in student.state_dict())
        folder = tmp_path / str(number)
        folder.mkdir()
        save_network(folder, student, spec, about={})
        loaded, about = load_network(folder)
        assert "width" not in about["arguments"]
        images = torch.rand(2, 3, 16, 16)
        torch.testing.assert_close(loaded(images, 2), student.eval()(images, 2), rtol=0, atol=0)


LARGER: Mapping[str, Any] = {
    "train_teacher.backbone": "resnet8",
    "distill_student.backbone": "resnet8",
    "distill_student.allow_larger": False,
}


def test_a_student_larger_than_its_teacher_is_refused_before_anything_runs(
    params_file: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params(params_file(dict(LARGER)))
    with pytest.raises(UserError, match=r"^distill_student.backbone: the student has .* parameters, more than the "):
        check_networks(params)
    for changes in (
        {"distill_student.allow_larger": True},
        {"distill_student.method": "ofm_kt"},
        {"distill_student.method": "metric"},
        {"distill_student.backbone": "resnet8_x0_5"},
    ):
        right = load_params(params_file({**LARGER, **changes}))
        found = check_networks(right)
    monkeypatch.delattr("pipeline.preflight.sizes.check_student_is_smaller")
    assert check_networks(right, earlier=found) == found, "found right before, not built again"


def test_a_student_larger_than_its_teacher_is_refused_before_it_trains(taught: Bench) -> None:
    changes = {**LARGER, "distill_student.training.epochs": 1}
    result = taught.distill(changes)
    refused(result, "distill_student.backbone: the student has", "parameters, more than the", "allow_larger: true")
    assert not (taught.folder / "student").exists()
    assert taught.distill(changes | {"distill_student.method": "metric"}).exit_code == 0


def test_training_says_how_wide_the_flow_is_and_warns_of_a_costly_one(taught: Bench) -> None:
    result = taught.distill({"distill_student.flow.width": "full"})
    assert result.exit_code == 0
    assert "meta-encoder conv: all 64 channels, " in result.output
    (warning,) = [text for text in taught.json("student.json")["warnings"] if "flow.width" in text]
    assert warning in result.output
    assert json.loads((taught.folder / "student/network.json").read_text())["arguments"]["width"] is None
    assert taught.distill({}).exit_code == 0
    assert not [text for text in taught.json("student.json")["warnings"] if "flow.width" in text]
    assert isinstance(json.loads((taught.folder / "student/network.json").read_text())["arguments"]["width"], int)
