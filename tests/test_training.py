"""The training loop, its batches and its learning rate."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.normalize import Normalize
from pipeline.data.batches import TrainingBatches, ordered_batches, random_crop
from pipeline.data.store import Split
from pipeline.errors import GateError, UserError
from pipeline.objectives import Supervised
from pipeline.optim import build_optimizer, learning_rate_factor
from pipeline.seeding import derive_seed, seed_everything
from pipeline.training import EMPTY_HISTORY, accuracy, train, write_history

CPU = torch.device("cpu")
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "precision": "fp32",
    "optimizer": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0, "decay_all": True},
    "schedule": {"name": "cosine", "warmup_epochs": 0, "milestones": (), "gamma": 0.1},
    "augment": {"crop_padding": 1, "horizontal_flip": True},
}


def make_split(count: int = 64) -> Split:
    """Return two classes that differ in brightness, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, 6, 5), generator=generator)
    return Split((noise + 120 * labels[:, None, None, None]).to(torch.uint8), labels)


def run(**changes: Any) -> tuple[nn.Module, list[dict[str, Any]]]:
    seed_everything(0, "test")
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 3, 2))
    network = nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), layers)
    options = {**SETTINGS, "seed": 0, "device": CPU, "on_epoch": lambda rows: None, **changes}  # noqa: ARG005
    return network, train(Supervised(network, label_smoothing=0.0), make_split(), make_split(), **options)


def test_training_learns_and_reports_every_epoch() -> None:
    seen: list[int] = []
    network, rows = run(on_epoch=lambda rows: seen.append(len(rows)))
    assert seen == [1, 2, 3]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["held_out_accuracy"] == accuracy(network, make_split(), CPU) == 1.0


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    (one, _), (again, _), (other, _) = run(), run(), run(seed=1)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(iter(one.parameters())), next(iter(other.parameters())))


def test_mixed_precision_learns_with_float32_weights() -> None:
    network, rows = run(precision="bf16")
    assert rows[-1]["held_out_accuracy"] == 1.0
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert rows[-1]["loss"] != run()[1][-1]["loss"]


def test_biases_and_norms_can_be_spared_from_weight_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    rest: dict[str, Any] = {"steps_per_epoch": 1, "epochs": 1, "schedule": SETTINGS["schedule"]}
    for decay_all, expected in ((True, [0.1] * 4), (False, [0.1, 0.0, 0.0, 0.0])):
        options = {**SETTINGS["optimizer"], "weight_decay": 0.1, "decay_all": decay_all}
        groups = build_optimizer(network, **options, **rest)[0].param_groups
        found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert [found[id(p)] for p in network.parameters()] == expected


def test_a_diverging_run_stops_and_says_where() -> None:
    with pytest.raises(GateError, match=r"training diverged in epoch \d .*loss .*lower the learning rate"):
        run(optimizer={**SETTINGS["optimizer"], "learning_rate": 1e30})


def test_a_layer_without_determinism_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(loss: torch.Tensor) -> None:  # noqa: ARG001
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"
        )

    monkeypatch.setattr(torch.autograd, "backward", backward)
    with pytest.raises(
        UserError, match=r"base.deterministic: got True, but adaptive_avg_pool2d_backward_cuda does not"
    ):
        run()


def test_history_is_written_whole_and_a_header_where_nothing_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_history(path, [])
    assert path.read_text() == ",".join(EMPTY_HISTORY) + "\n"
    write_history(path, [{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 0.25}])
    assert path.read_text() == "epoch,loss\n1,0.333333\n2,0.25\n"


def test_an_epoch_takes_every_image_once_and_leaves_out_an_incomplete_batch() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2)
    batches = TrainingBatches(
        Split(images, torch.arange(10)), batch_size=4, crop_padding=0, horizontal_flip=False, device=CPU
    )
    drawn = list(batches.epoch(0))
    assert len(drawn) == len(batches) == 2
    labels = torch.cat([batch.labels for batch in drawn])
    assert len(labels.unique()) == 8
    assert all((b.images * 255 == b.labels[:, None, None, None]).all() for b in drawn)
    assert not torch.equal(labels, torch.cat([batch.labels for batch in batches.epoch(1)]))


def test_a_split_smaller_than_a_batch_makes_one_batch() -> None:
    batches = TrainingBatches(make_split(6), batch_size=64, crop_padding=0, horizontal_flip=False, device=CPU)
    assert [len(batch.labels) for batch in batches.epoch(0)] == [6]


def test_ordered_batches_cover_everything_in_order() -> None:
    split = make_split(10)
    batches = list(ordered_batches(split, 4, CPU))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), split.images.float() / 255)


def test_random_crops_are_windows_of_the_padded_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(1, 255, (32, 3, 5, 4), generator=generator, dtype=torch.uint8)
    cropped = random_crop(images, 2, generator)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    offsets = set()
    for image, source in zip(cropped, padded, strict=True):
        windows = [(r, c) for r in range(5) for c in range(5) if torch.equal(image, source[:, r : r + 5, c : c + 4])]
        assert windows
        offsets.add(windows[0])
    assert len(offsets) > 5


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0), (1, 0.5), (2, 1), (6, 0.5), (10, 0)])
def test_cosine_warms_up_and_falls_to_zero(epoch: float, expected: float) -> None:
    factor = learning_rate_factor(epoch, epochs=10, name="cosine", warmup_epochs=2, milestones=(), gamma=0.1)
    assert factor == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("epoch", "expected"), [(0, 1), (2.99, 1), (3, 0.1), (4.9, 0.1), (5, 0.01)])
def test_multistep_falls_at_its_milestones(epoch: float, expected: float) -> None:
    options = {"epochs": 10, "name": "multistep", "warmup_epochs": 0, "milestones": (3, 5), "gamma": 0.1}
    assert learning_rate_factor(epoch, **options) == pytest.approx(expected)  # type: ignore[arg-type]


def test_seeds_differ_by_name_and_epoch() -> None:
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1), derive_seed(0, "a", 2)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert math.log2(max(seeds)) > 40
