"""Detectors in training: their loss, distillation on levels, what stages report, the weights that they start from."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from models.deploy import with_num_steps
from models.detection.tail import Tail
from models.detections import Detections
from models.losses import pkd_loss
from pipeline.core.errors import UserError
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.settings import Flow
from pipeline.params.schema import load_params
from pipeline.preflight.estimate import estimate_trainings
from pipeline.tasks.detection.training import DetectorLoss, objects_of
from pipeline.training.diagnosis import early_warning, training_warnings
from pipeline.training.fine_tuning import TunedBackbone
from pipeline.training.loop import build_step
from pipeline.training.network_settings import DetectorSettings
from pipeline.training.settings import FineTuning, LearningRate, Training
from pipeline.training.teacher import Teacher, build_teacher
from pipeline.training.teacher_settings import TrainTeacher
from tests.detection_data import CLASSES, INFO, SIDE, make_split, write_data
from tests.test_distributed import run_module
from tests.toy_detectors import LEVELS, SMALL, TRAINING, distilled, make_batch, make_teacher
from tests.two_detector_processes import take_steps
from workbench.bench import SMALL as SMALL_RUN
from workbench.bench import Bench
from workbench.project import write_params

CPU = torch.device("cpu")


def test_the_objects_of_each_image_are_learned_but_for_those_that_are_ignored() -> None:
    batch = make_batch(40)
    boxes, classes = objects_of(batch)
    truth = batch.targets.truth()
    for i, (own, kinds) in enumerate(zip(boxes, classes, strict=True)):
        rows = slice(truth["offsets"][i], truth["offsets"][i + 1])
        kept = ~truth["ignored"][rows]
        np.testing.assert_array_equal(own, truth["boxes"][rows][kept])
        np.testing.assert_array_equal(kinds, truth["classes"][rows][kept])
    assert truth["ignored"].any()
    assert any(len(own) == 0 for own in boxes)


def test_the_loss_is_the_sum_of_the_detectors_own_which_are_reported() -> None:
    network, batch = make_teacher().eval(), make_batch()
    supervision = TRAINING.supervision(INFO, label_smoothing=0.0, class_weights=None)
    predicted = network(batch.images)
    loss = supervision.loss(predicted, batch)
    parts = predicted.losses(*objects_of(batch))
    assert supervision.batch_scores(predicted, batch) == {f"{name}_loss": part for name, part in parts.items()}
    torch.testing.assert_close(loss, sum(parts.values()))
    assert abs(float(loss.detach()) - supervision.fresh_loss) < 0.5, (
        "random weights have about the loss of knowing nothing"
    )


@pytest.mark.parametrize("kind", ["retinanet", "faster_rcnn"])
def test_other_detectors_have_losses_too(kind: str) -> None:
    torch.manual_seed(0)
    changes = {"num_convs": 4} if kind == "retinanet" else {}
    network, batch = make_teacher(kind=kind, **changes).float().train(), make_batch()
    batch = batch._replace(images=batch.images.float())
    supervision = TRAINING.supervision(INFO, label_smoothing=0.0, class_weights=None)
    loss = supervision.loss(network(batch.images), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert 0 < float(loss.detach()) < 1.5 * supervision.fresh_loss
    assert all(p.grad is not None for p in network.backbone.parameters())  # type: ignore[union-attr]
    assert len(supervision.batch_scores(None, batch)) >= 2


@pytest.mark.parametrize("method", ["metric", "metric_meta", "fm_kt"])
def test_losses_of_the_levels_are_summed_but_for_the_last(method: str) -> None:
    teacher, batch = make_teacher(), make_batch()
    built = distilled(method, teacher)
    objective, student = built.objective, built.student
    target = teacher.double().eval().feature_maps(batch.images)  # type: ignore[operator]
    if method == "fm_kt":
        paths = student.trajectories(batch.images, 2)  # type: ignore[operator]
        steps = [[*path.estimates] for path in paths]
        predicted = student(batch.images, 2)
    else:
        steps = [[one] for one in student.feature_maps(batch.images)]  # type: ignore[operator]
        predicted = student(batch.images)
    adapter: Any = built.adapter
    costs = [torch.stack([pkd_loss(adapter[i](x), target[i]) for x in steps[i]]).mean() for i in range(LEVELS - 1)]
    own = sum(predicted.losses(*objects_of(batch)).values())
    torch.testing.assert_close(objective(batch).total, own + 6 * torch.stack(costs).sum())
    assert [name for name, _ in adapter[LEVELS - 1].named_parameters()] == []
    assert built.teacher_stages == [1, 2]


def test_weights_of_levels_multiply_their_losses() -> None:
    objective: Any = distilled("fm_kt", pair_weights=(10.0, 2.0, 3.0)).objective
    batch = make_batch()
    assert objective.teacher_loss.weights == [10.0, 2.0, 3.0]
    mixed = objective(batch).parts["transfer"]
    alone = []
    for weights in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]):
        objective.teacher_loss.weights = weights
        alone.append(objective(batch).parts["transfer"])
    torch.testing.assert_close(mixed, 10 * alone[0] + 2 * alone[1] + 3 * alone[2])


@pytest.mark.parametrize("method", ["none", "metric", "metric_meta", "fm_kt"])
def test_every_weight_of_a_student_learns_whatever_its_level_weighs(method: str) -> None:
    built = distilled(method)
    built.objective.train()
    built.objective(make_batch()).total.backward()
    assert [name for name, p in built.objective.network.named_parameters() if p.grad is None] == []
    assert all(p.grad is None for p in built.teacher.parameters()) if built.teacher else method == "none"


@pytest.mark.parametrize("method", ["metric", "metric_meta", "fm_kt"])
def test_what_deploys_finds_what_the_trained_student_finds(method: str) -> None:
    built, batch = distilled(method), make_batch()
    steps = 2 if method == "fm_kt" else None
    network = with_num_steps(built.student, steps).eval()
    with torch.no_grad():
        trained = TRAINING.outputs(network(batch.images))
        parts = TRAINING.export_parts(network.smallest_form((SIDE, SIDE)))
        found = parts.whole()(batch.images)
    assert parts.body_outputs == ("class_logits", "box_regression", "centerness")
    assert isinstance(parts.tail, Tail)
    for name, tensor in zip(trained, found, strict=True):
        np.testing.assert_allclose(tensor, trained[name], atol=1e-6)


def test_a_faster_rcnn_teaches_levels() -> None:
    teacher = make_teacher(kind="faster_rcnn")
    built, batch = distilled("fm_kt", teacher), make_batch()
    built.objective(batch).total.backward()
    assert built.teacher_stages == [1, 2]


def test_levels_that_do_not_go_one_to_one_are_named_and_pairs_take_them_all_the_same() -> None:
    teacher = make_teacher(levels=(1, 2, 3))
    with pytest.raises(
        UserError, match=r"feature_pairs: got null, which takes level after level, but those of the student"
    ):
        distilled("metric", teacher)
    built = distilled("metric", teacher, feature_pairs=((1, 1), (2, 3)))
    shapes = built.adapter_spec.arguments["shapes"]  # type: ignore[union-attr]
    assert [shape and shape[2] for shape in shapes] == [[SIDE, SIDE], [SIDE // 4, SIDE // 4]], "of other sizes too"
    assert built.objective(make_batch()).total.isfinite()


def test_only_the_flows_deploy_as_an_average_of_their_own() -> None:
    built = distilled("fm_kt", flow=Flow(num_steps=(1,), ema_decay=0.5))
    built.objective.train()
    execution: Any = SimpleNamespace(device=CPU, precision="fp32", compiled=False)
    step = build_step(built.objective, execution, Training(epochs=3), steps_per_epoch=4)
    assert step.average is not None
    flows = {id(p) for p in built.student.flows.parameters()}  # type: ignore[union-attr]
    assert {id(p) for p in step.average.live} == flows
    before = copy.deepcopy(built.student.state_dict())
    step(make_batch())
    live = copy.deepcopy(built.student.state_dict())
    step.average.install()
    decay = min(0.5, 2 / 11)
    for name, value in built.student.state_dict().items():
        is_flow = name.startswith("flows.") and name in dict(built.student.named_parameters())
        expected = decay * before[name] + (1 - decay) * live[name] if is_flow else live[name]
        torch.testing.assert_close(value, expected)


def test_a_training_of_a_detector_is_judged_by_what_it_finds() -> None:
    supervision = TRAINING.supervision(INFO, label_smoothing=0.0, class_weights=None)
    assert isinstance(supervision, DetectorLoss)
    split = make_split(16, 5)
    nothing = supervision.validate(make_teacher().float().eval(), split, CPU)
    assert nothing.scores["ap"] < 0.02
    assert next(iter(nothing.scores)) == "ap"
    assert nothing.doubts
    row = {"epoch": 3, "detection_loss": 1.6}
    (line,) = training_warnings([row], nothing, supervision, what="the teacher", key="train_teacher.training")
    assert "train longer (train_teacher.training.epochs" in line
    assert early_warning(row, supervision, key="train_teacher.training", epochs=4) is None
    diverged = early_warning(row | {"detection_loss": 50.0}, supervision, key="x.training", epochs=4)
    assert diverged is not None
    assert "has diverged (detection_loss 50, random weights give about 3); lower x.training.optimizer" in diverged


def test_validation_in_shards_finds_what_one_process_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.tasks.detection import training

    supervision = TRAINING.supervision(INFO, label_smoothing=0.0, class_weights=None)
    network, split = make_teacher().float().eval(), make_split(10, 4)
    whole = supervision.validate(network, split, CPU)
    parts: list[Any] = []
    monkeypatch.setattr(training, "all_gather_arrays", lambda found: [*parts, found])
    for shard in (slice(0, 4), slice(4, 10)):
        monkeypatch.setattr(training, "local_shard", lambda _, __, shard=shard: shard)
        found = supervision.validate(network, split, CPU)
        parts.append([supervision.outputs(network(b.images)) for b in ordered_batches(split.select(shard), 16, CPU)])
    assert found == whole


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    """In float64; the positives of a batch are counted over both, whose images hold different numbers of objects."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.two_detector_processes"]
    result = run_module(tmp_path, *torchrun, "both.pt")
    assert result.returncode == 0, result.stderr
    torch.testing.assert_close(torch.load(tmp_path / "both.pt"), take_steps(), rtol=1e-7, atol=1e-9)


def published(kind: str, path: Path) -> nn.Module:
    """Write weights as torchvision publishes them, of a resnet18, to ``path``; return their network."""
    torch.manual_seed(0)
    extra = LastLevelP6P7(256, 256)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=[2, 3, 4], extra_blocks=extra
    )
    network: nn.Module = {"fcos": FCOS, "retinanet": RetinaNet}[kind](backbone, 91).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    torch.save(network.state_dict(), path)
    return network


def started(kind: str, weights: Path, class_names: tuple[str, ...], epochs: int = 0) -> Teacher:
    info = INFO.__class__(INFO.task, class_names, (128, 128), INFO.mean, INFO.std, "none", "packed")
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    training = Training(epochs=epochs, schedule=LearningRate(warmup_epochs=0))
    settings = TrainTeacher(
        backbone="resnet18", weights=str(weights), detector=DetectorSettings(kind=kind), training=training, **imagenet
    )
    return build_teacher(settings, info, TRAINING)


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_coco_weights_answer_for_the_classes_of_the_data(kind: str, tmp_path: Path) -> None:
    theirs: Any = published(kind, tmp_path / "coco.pth")
    own = started(kind, tmp_path / "coco.pth", ("dog", "Person", "traffic_light")).network.eval()
    images = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        maps = theirs.backbone(theirs.transform.normalize(images))
        expected = theirs.head([*maps.values()])
        logits, regression, *_ = own(images).tensors
    torch.testing.assert_close(logits, expected["cls_logits"][:, :, [18, 1, 10]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(regression, expected["bbox_regression"], rtol=1e-5, atol=1e-5)


def test_classes_that_coco_does_not_have_are_named_or_learned_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published("fcos", tmp_path / "coco.pth")
    with pytest.raises(
        UserError, match=r"train_teacher.weights: its 91 outputs are COCO's categories, and 2 of the data's 3"
    ):
        started("fcos", tmp_path / "coco.pth", ("dog", "persn", "gadget"))
    with caplog.at_level("INFO"):
        teacher = started("fcos", tmp_path / "coco.pth", ("dog", "persn", "gadget"), epochs=2)
    assert "its outputs are learnt anew" in caplog.text
    assert "head.classification_head.cls_logits.weight" not in teacher.loaded
    assert "pyramid.inner_blocks.0.0.weight" in teacher.loaded


def test_weights_of_a_classifier_start_the_backbone_alone(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), tmp_path / "w.pth")
    teacher = started("fcos", tmp_path / "w.pth", CLASSES, epochs=2)
    assert {name.partition(".")[0] for name in teacher.loaded} == {"backbone"}
    supervision = TRAINING.supervision(INFO, label_smoothing=0.0, class_weights=None)
    settings = TrainTeacher(
        backbone="resnet18",
        weights=str(tmp_path / "w.pth"),
        training=Training(epochs=3, fine_tuning=FineTuning(frozen_epochs=1)),
    )
    tuned = teacher.objective(settings, TRAINING, supervision).tuned
    assert isinstance(tuned, TunedBackbone)
    assert {id(p) for p in tuned.parameters()} == {id(p) for p in teacher.network.backbone.parameters()}  # type: ignore[union-attr]


CHANGES: dict[str, Any] = {
    "distill_student.backbone": "resnet8",
    "distill_student.transfer": "features",
    "distill_student.loss": "pkd",
    "distill_student.feature_pairs": None,
    "distill_student.flow.num_steps": [2],
    "distill_student.flow.ema_decay": 0.9,
} | {
    f"{section}.{key}": value
    for section in ("train_teacher", "distill_student")
    for key, value in {
        **{f"detector.{name}": list(value) if name == "levels" else value for name, value in SMALL.items()},
        "training.epochs": 2,
        "training.batch_size": 16,
        "training.clip_norm": 10.0,
        "training.optimizer.name": "adamw",
        "training.optimizer.learning_rate": 0.004,
        "training.schedule.warmup_epochs": 0.5,
        "training.augment.crop_padding": 0,
    }.items()
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench with data of a detector and its teacher."""
    folder = tmp_path_factory.mktemp("detector")
    write_data(folder / "data")
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    result = bench.teach(CHANGES)
    assert result.exit_code == 0, result.output
    return bench


def test_the_teacher_is_reported_with_its_scores_and_the_parts_of_its_loss(bench: Bench) -> None:
    report = bench.json("teacher.json")
    assert {"test_ap", "test_ap50", "test_ap_standard_error", "macs", "num_parameters"} <= report.keys()
    header, first, _ = (bench.folder / "teacher.csv").read_text().split("\n", 2)
    row = dict(zip(header.split(","), map(float, first.split(",")), strict=True))
    parts = [row[f"{name}_loss"] for name in ("classification", "bbox_regression", "bbox_ctrness")]
    assert sum(parts) == pytest.approx(row["detection_loss"], rel=1e-4)
    assert "val_ap50" in row


def test_what_is_foretold_counts_images_not_objects(bench: Bench) -> None:
    changes = {"prepare_data.source": "digit_scenes", "base.num_threads": 1}
    params = load_params(bench.write({**SMALL_RUN, **CHANGES, **changes}))
    for found in estimate_trainings(params, bench.folder / "data"):
        assert found.images == 48 != sum(INFO.class_counts)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fm_kt", "metric_meta", "none"])
def test_stages_train_calibrate_and_trace_students(method: str, bench: Bench) -> None:
    changes = CHANGES | {"distill_student.method": method}
    for stage in (bench.distill, bench.calibrate, bench.trace):
        result = stage(changes)
        assert result.exit_code == 0, result.output
    calibration = bench.json("calibration/calibration.json")
    assert calibration["num_steps"] == (1 if method == "fm_kt" else None) or calibration["num_steps"] == 2
    assert {"ap", "ap50", "ap_standard_error"} <= calibration["curve"][0].keys()
    lines = (bench.folder / "steps.csv").read_text().splitlines()
    assert len(lines) == (1 + LEVELS * 2 if method == "fm_kt" else 1)
    if method == "fm_kt":
        rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
        assert [row["flow"] for row in rows] == [f"level {i}" for i in (1, 1, 2, 2, 3, 3)]
        assert [bool(row["state_distance"]) for row in rows] == [True] * 4 + [False] * 2, "the last level has no target"
        assert all(row["ensemble_ap"] for row in rows)


@pytest.mark.slow
def test_a_training_that_was_interrupted_goes_on_to_the_same_weights(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = CHANGES | {"distill_student.training.epochs": 3}
    assert bench.distill(changes).exit_code == 0
    whole = (bench.folder / "student" / "model.safetensors").read_bytes()
    from pipeline.training import loop

    validate, calls = loop._validate, []

    def stopped(*args: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(loop, "_validate", stopped)
    assert bench.distill(changes).exit_code != 0
    monkeypatch.undo()
    result = bench.distill(changes)
    assert "going on after its epoch 1" in result.output
    assert (bench.folder / "student" / "model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("threshold", [0.0, 0.069, 0.9])
def test_what_is_found_in_training_is_what_the_graph_finds(threshold: float) -> None:
    network = make_teacher().eval()
    with torch.no_grad():
        predicted: Any = network(make_batch().images)
    for post in (Detections(threshold), Detections(threshold, candidates=50, max_detections=30, rounds=2)):
        graph = Tail(predicted.places, post)(*predicted.tensors)
        for own, of_graph in zip(predicted.detect(post), graph, strict=True):
            assert torch.equal(own, of_graph)
            assert own.dtype == of_graph.dtype
