"""Teacher logits that are stored: the same training, bit for bit, without the teacher at each step."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import Tensor, nn

from pipeline.core.errors import UserError
from pipeline.data.augmentation import Augmentation
from pipeline.data.packed_batches import PackedBatches
from pipeline.distillation import stored_teacher
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.record_file import RecordFile
from pipeline.distillation.settings import DistillStudent
from pipeline.distillation.stored_teacher import StoredTeacher, store_logits
from pipeline.tasks.classification.training import build_mix
from pipeline.training.loop import Row
from pipeline.training.settings import Training
from tests.helpers import refused
from tests.toy_objectives import INFO, make_objective
from tests.toy_training import CPU, make_split, run
from workbench.bench import Bench, taught_bench

SPLIT = make_split(64, (8, 8))
STEPS = 4
VIEWS = 2
EPOCHS = 5


class Interrupted(Exception):  # noqa: N818
    """Stands for the end of a process."""


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each batch that a teacher computes."""
    found: list[int] = []
    original = FrozenTeacher.forward

    def counted(self: FrozenTeacher, images: Tensor) -> list[Tensor]:
        found.append(len(images))
        return original(self, images)

    monkeypatch.setattr(FrozenTeacher, "forward", counted)
    return found


def trained(
    folder: Path,
    store: Path | None,
    *,
    objective: dict[str, Any] | None = None,
    stop_at: int | None = None,
    on_epoch: Callable[[list[Row]], None] | None = None,
    **changes: Any,
) -> dict[str, Tensor]:
    """Train with logits stored in ``store``, or without storing them, and return the weights.

    ``stop_at`` ends it before that batch of the whole training, as a killed process would.
    """
    built = make_objective(stored_views=VIEWS, **(objective or {}))
    teacher = built.teacher
    assert isinstance(teacher, StoredTeacher)
    if store is not None:
        teacher.keep_in(store)
    steps = iter(range(STEPS * EPOCHS))

    def stop(module: nn.Module, args: object) -> None:  # noqa: ARG001
        if next(steps) == stop_at:
            raise Interrupted

    built.register_forward_pre_hook(stop)
    network, _ = run(folder, built, split=SPLIT, epochs=EPOCHS, on_epoch=on_epoch, **changes)
    return network.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [
        ({"method": "metric", "loss": "dist"}, {}),
        ({"method": "fm_kt", "flow": {"num_steps": (1, 2), "pair_ratio": 0.5}}, {}),
        ({"method": "fm_kt_theta"}, {"precision": "bf16"}),
    ],
)
def test_stored_logits_train_to_the_same_bits(
    objective: dict[str, Any], changes: dict[str, Any], tmp_path: Path, forwards: list[int]
) -> None:
    """Drawn numbers of steps and decoupled pairs go on drawing: only the teacher and its batches repeat."""
    computed = trained(tmp_path / "computed", None, objective=objective, **changes)
    assert len(forwards) == EPOCHS * STEPS
    forwards.clear()
    assert same(computed, trained(tmp_path / "stored", tmp_path / "store", objective=objective, **changes))
    assert len(forwards) == VIEWS * STEPS


def test_another_method_computes_nothing_anew(tmp_path: Path, forwards: list[int]) -> None:
    trained(tmp_path / "one", tmp_path / "store", objective={"method": "metric"})
    forwards.clear()
    computed = trained(tmp_path / "computed", None)
    forwards.clear()
    assert same(computed, trained(tmp_path / "other", tmp_path / "store"))
    assert forwards == []


@pytest.mark.parametrize("stop_at", [0, 2, STEPS + 1, VIEWS * STEPS + 3])
def test_a_run_that_ended_within_an_epoch_goes_on_to_the_same_bits(
    stop_at: int, tmp_path: Path, forwards: list[int]
) -> None:
    whole = trained(tmp_path / "whole", None)
    forwards.clear()
    with pytest.raises(Interrupted):
        trained(tmp_path / "parts", tmp_path / "store", stop_at=stop_at)
    assert same(whole, trained(tmp_path / "parts", tmp_path / "store"))
    assert len(forwards) == VIEWS * STEPS, "what the interrupted epoch had stored is read"


def damage(store: Path, how: str) -> None:
    path = store / "view-00001.shard-0"
    if how == "removed":
        shutil.rmtree(store)
        return
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"cut": data[:-20], "empty": b"", "one bit": flipped, "its size": b"\xff" * 8 + data[8:]}[how])


@pytest.mark.parametrize(
    ("how", "computed", "word"),
    [
        ("cut", 1, "damaged"),
        ("empty", STEPS, "missing"),
        ("one bit", 1, "damaged"),
        ("its size", 1, "missing"),
        ("removed", VIEWS * STEPS, "missing"),
    ],
)
def test_what_is_lost_on_disk_is_computed_anew_with_a_word(
    how: str, computed: int, word: str, tmp_path: Path, forwards: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path / "whole", None)
    forwards.clear()
    store = tmp_path / "store"

    def spoil(rows: list[Row]) -> None:
        if len(rows) == VIEWS:
            damage(store, how)

    with caplog.at_level(logging.INFO):
        again = trained(tmp_path / "again", store, on_epoch=spoil)
    assert same(whole, again)
    assert len(forwards) == VIEWS * STEPS + computed
    assert caplog.text.count(f"are {word}; computed anew") == (VIEWS if how == "removed" else 1)


def test_a_record_is_of_its_number_alone(tmp_path: Path) -> None:
    records = RecordFile(tmp_path / "folder/file")
    values = {number: torch.randn(3, 2, dtype=torch.bfloat16) for number in (0, 2)}
    for number, value in values.items():
        records.write(number, value)
    for number, value in values.items():
        found = records.read(number)
        assert found is not None
        assert torch.equal(found, value)
    assert records.read(1) is records.read(7) is None
    assert not records.is_damaged
    data = bytearray(records.path.read_bytes())
    size = (len(data) - 8) // 3
    data[8 + size : 8 + 2 * size] = data[8 : 8 + size]
    records.path.write_bytes(data)
    assert RecordFile(records.path).read(1) is None


def test_the_batches_of_a_seed_come_again_with_their_mixing() -> None:
    """Whatever the student has drawn in between."""
    mix = build_mix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=2)
    augmentation = Augmentation(crop_padding=2, horizontal_flip=True, color_jitter=0.2)
    batches = PackedBatches(SPLIT, batch_size=16, device=CPU, augmentation=augmentation, mix=mix)
    first = list(batches.epoch(3))
    torch.manual_seed(99)
    again = []
    for batch in batches.epoch(3):
        again.append(batch)
        torch.rand(7)
    other = next(iter(batches.epoch(4)))
    assert [batch.number for batch in first] == [0, 1, 2, 3]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.targets.soft_targets, two.targets.soft_targets)  # type: ignore[attr-defined]
    assert not torch.equal(first[0].images, other.images)
    state = torch.get_rng_state()
    next(iter(batches.epoch(3)))
    assert torch.equal(torch.get_rng_state(), state), "mixing leaves the random numbers of others alone"


def test_what_cannot_be_stored_is_refused_and_what_gains_nothing_is_said() -> None:
    with pytest.raises(ValueError, match=r"stored_views: got 2, but feature maps are too large to be stored; set it"):
        DistillStudent(stored_views=2, transfer="features", loss="pkd")
    DistillStudent(stored_views=2, method="none", transfer="features")
    many = DistillStudent(stored_views=5, training=Training(epochs=5))
    (line,) = many.warnings(10)
    assert "stored_views: 5 of 5 epochs: no batch comes again" in line
    assert not list(DistillStudent(stored_views=4, training=Training(epochs=5)).warnings(10))


STORED = {"distill_student.stored_views": 1, "distill_student.training.epochs": 2}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("stored"))


def stores(bench: Bench) -> list[Path]:
    return sorted(bench.folder.glob(".checkpoints/teacher_logits/*"))


def distill(bench: Bench, **changes: Any) -> Result:
    return bench.distill(
        STORED | {f"distill_student.{key.replace('__', '.')}": value for key, value in changes.items()}
    )


@pytest.mark.slow
def test_the_stage_stores_them_for_every_method_and_anew_for_other_batches(bench: Bench, forwards: list[int]) -> None:
    steps, size = 3, 96  # 80 images, none of which is left out for good
    result = distill(bench)
    assert result.exit_code == 0, result.output
    assert forwards == [32] * steps
    assert f"1 x {size} images x 10 classes, 0 MiB" in result.output
    for changes in ({"method": "metric", "loss": "kd"}, {"flow__num_steps": [1, 2]}, {"backbone": "resnet20"}):
        result = distill(bench, **changes)
        assert result.exit_code == 0, result.output
        assert len(forwards) == steps, changes
    assert len(stores(bench)) == 1
    for changes in (
        {"training__augment__horizontal_flip": True},
        {"training__batch_size": 16},
        {"training__precision": "bf16"},
    ):
        forwards.clear()
        result = distill(bench, **changes)
        assert result.exit_code == 0, result.output
        assert forwards, changes
    assert len(stores(bench)) == 4


def test_the_oldest_of_other_trainings_make_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert distill(bench).exit_code == 0
    assert distill(bench, training__batch_size=20).exit_code == 0
    kept, newest = stores_of(bench)[-2:]
    monkeypatch.setattr(stored_teacher, "KEPT_BYTES", 2 * sum(path.stat().st_size for path in newest.iterdir()))
    result = distill(bench, training__batch_size=40)
    assert result.exit_code == 0, result.output
    assert "older logits of a teacher, removed for new ones" in result.output
    assert not kept.exists()
    assert newest.exists()


def test_what_another_training_removes_meanwhile_does_not_count(bench: Bench) -> None:
    assert distill(bench).exit_code == 0
    gone = [stores_of(bench)[-1] / "view-00009.shard-0", stores_of(bench)[-1].parent / "removed"]
    for path in gone:
        path.symlink_to("nothing")  # is listed and cannot be looked at, as what goes in between
    result = distill(bench, training__batch_size=48)
    for path in gone:
        path.unlink()
    assert result.exit_code == 0, result.output


def stores_of(bench: Bench) -> list[Path]:
    return sorted(stores(bench), key=lambda path: path.stat().st_mtime_ns)


def test_a_disk_that_is_too_small_is_named_before_training(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    result = distill(bench, training__batch_size=64)
    refused(result, "distill_student.stored_views: 1 x 128 images x 10 classes", "give fewer views, or null")
    assert "epoch 1/2" not in result.output


def test_each_host_sees_to_its_own_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a host that is not the head, then the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    for name, value in {"TORCHELASTIC_RUN_ID": "r", "RANK": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    info = replace(INFO, class_counts=(64, 64, 64, 64))
    teacher, training = StoredTeacher(nn.Identity(), 1), DistillStudent().training
    with pytest.raises(UserError, match=r"^distill_student.stored_views: 1 x "):
        store_logits(teacher, info, training, {}, [], code="")
    monkeypatch.setenv("LOCAL_RANK", "1")
    store_logits(teacher, info, training, {}, [], code="")
