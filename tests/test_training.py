"""The training loop: what it learns, reports, repeats and refuses."""

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from models.factory import build_classifier
from pipeline.core.errors import GateError, UserError
from pipeline.core.torch_setup import derive_seed
from pipeline.data.batch import Batch
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.training.execution import choose_precision
from pipeline.training.loop import Row, write_empty_history, write_history
from pipeline.training.objective import Loss, Objective, Supervised
from pipeline.training.settings import LearningRate, Optimizer
from tests.toy_objectives import make_objective
from tests.toy_training import CPU, SGD, draft, make_split, run

EVEN = LearningRate(name="multistep", warmup_epochs=0)
"""The same learning rate throughout."""


def val_accuracy(objective: Objective) -> float:
    return objective.supervision.validate(objective.predict, make_split(), CPU).scores["accuracy"]


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_learns_and_reports_every_epoch(tmp_path: Path) -> None:
    seen: list[int] = []
    objective = draft()
    _, rows = run(tmp_path, objective, on_epoch=lambda rows: seen.append(len(rows)))
    assert seen == [1, 2, 3]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["val_accuracy"] == val_accuracy(objective) == 1.0
    assert list(rows[0]) == ["epoch", "learning_rate", "loss", "cross_entropy", "train_accuracy", "val_accuracy"]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    (one, rows), (again, rows_again), (other, _) = (run(tmp_path / f"{i}", seed=s) for i, s in enumerate((0, 0, 1)))
    assert same_bits(one, again)
    assert rows == rows_again
    assert not same_bits(one, other)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "adamw": {"optimizer": Optimizer(name="adamw", learning_rate=0.01, weight_decay=0.0)},
    "average": {"ema_decay": 0.9},
    "clipped": {"clip_norm": 0.5},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "one cycle": {"schedule": LearningRate(name="one_cycle", warmup_epochs=1)},
}


class Interrupted(Exception):  # noqa: N818
    """Stands for the end of a process."""


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("last", [1, 3])
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(name: str, last: int, tmp_path: Path) -> None:
    whole, rows = run(tmp_path / "whole", **VARIANTS[name])

    def interrupt(rows: list[Row]) -> None:
        if len(rows) == last:
            raise Interrupted

    with pytest.raises(Interrupted):
        run(tmp_path / "parts", **VARIANTS[name], on_epoch=interrupt)
    resumed: list[int] = []
    parts, rows_again = run(tmp_path / "parts", **VARIANTS[name], on_epoch=lambda rows: resumed.append(len(rows)))
    assert resumed == list(range(last, 4))
    assert rows_again == rows
    assert same_bits(whole, parts)


def test_a_run_that_ended_before_its_outputs_were_written_reports_its_history_again(tmp_path: Path) -> None:
    whole, rows = run(tmp_path)
    seen: list[list[Row]] = []
    again, rows_again = run(tmp_path, on_epoch=lambda rows: seen.append(list(rows)))
    assert seen == [rows]
    assert rows_again == rows
    assert same_bits(whole, again)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_with_float32_weights(precision: str, tmp_path: Path) -> None:
    network, rows = run(tmp_path / "half", precision=precision)
    assert rows[-1]["val_accuracy"] == 1.0
    assert all(p.dtype == torch.float32 for p in network.parameters())
    assert rows[-1]["loss"] != run(tmp_path / "full")[1][-1]["loss"]


def test_precision_is_chosen_by_what_the_cpu_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in (("sse avx512_bf16 amx", "bf16"), ("sse avx2 avx512f", "fp32")):
        monkeypatch.setattr(Path, "read_text", lambda *_, text=flags, **__: f"flags : {text}\n")
        assert choose_precision("auto", CPU, None) == expected
    assert choose_precision("fp16", CPU, None) == "fp16"


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet18", "bf16"),
        ("resnext50_32x4d", "bf16"),
        ("vit_b_16", "bf16"),
        ("mobilenet_v3_small", "fp32"),
        ("efficientnet_b0", "fp32"),
        ("convnext_tiny", "bf16"),
        ("shufflenet_v2_x1_0", "fp32"),
    ],
)
def test_cpus_train_depthwise_networks_in_float32(
    backbone: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "flags : sse avx512_bf16\n")
    with torch.device("meta"):
        network = get_model(backbone)
    assert choose_precision("auto", CPU, network) == expected
    assert choose_precision("bf16", CPU, network) == "bf16"


def test_the_average_of_the_weights_is_what_is_validated_and_left(tmp_path: Path) -> None:
    plain, _ = run(tmp_path / "plain")
    objective = draft()
    averaged, rows = run(tmp_path / "average", objective, ema_decay=0.9)
    assert not same_bits(plain, averaged)
    assert rows[-1]["val_accuracy"] == val_accuracy(objective)


def test_the_gradient_is_scaled_down_to_its_largest_norm(tmp_path: Path) -> None:
    """One step of plain descent moves the weights by the learning rate times the clipped norm."""
    still = SGD.model_copy(update={"momentum": 0.0, "nesterov": False})
    for clip_norm in (None, 0.01):
        objective = draft()
        before = [p.detach().clone() for p in objective.network.parameters()]
        options: dict[str, Any] = {"epochs": 1, "optimizer": still, "schedule": EVEN, "clip_norm": clip_norm}
        run(tmp_path / str(clip_norm), objective, split=make_split(16), **options)
        moved = torch.cat([(p - b).flatten() for p, b in zip(objective.network.parameters(), before, strict=True)])
        norm = float(moved.detach().norm()) / still.learning_rate
        assert norm > 0.02 if clip_norm is None else norm == pytest.approx(0.01, rel=1e-3)


def test_a_diverging_run_stops_and_says_where(tmp_path: Path) -> None:
    words = (
        r"loss is not finite at step \d of 4 of an epoch \(loss .*cross_entropy .*learning rate 1e\+30\); lower .*clip"
    )
    with pytest.raises(GateError, match=words):
        run(tmp_path, optimizer=SGD.model_copy(update={"learning_rate": 1e30}), schedule=EVEN)


def test_a_layer_without_determinism_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backward(loss: Tensor) -> None:  # noqa: ARG001
        raise RuntimeError(
            "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set"
        )

    monkeypatch.setattr(torch.autograd, "backward", backward)
    with pytest.raises(
        UserError, match=r"base.deterministic: got True, but adaptive_avg_pool2d_backward_cuda does not"
    ):
        run(tmp_path)


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ... is free.")


def of_the_host() -> None:
    torch.empty(2**50)


@pytest.mark.parametrize(("ask", "words"), [(of_a_gpu, "CUDA out of memory"), (of_the_host, "can't allocate memory")])
def test_too_little_memory_names_the_batch_size(
    ask: Callable[[], None], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.autograd, "backward", lambda _: ask())
    with pytest.raises(UserError, match=rf"batch_size: got \d+, for which .* memory \(.*{words}.*\); halve it"):
        run(tmp_path)


def test_no_figure_is_read_within_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two readings of the metrics no tensor becomes a number: on a GPU each would wait for all queued work."""
    reads: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(Tensor, name)

        def read(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            reads.append(name)
            return original(self, *args, **kwargs)

        return read

    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy"):
        monkeypatch.setattr(Tensor, name, watched(name))
    inside: list[list[str]] = []

    class Watched(Supervised):
        def forward(self, batch: Batch) -> Loss:
            inside.append(reads.copy())
            return super().forward(batch)

    plain = draft()
    run(tmp_path, Watched(plain.student, supervision=plain.supervision), epochs=1)
    assert len(inside) == 4
    assert inside[-1] == inside[0], "nothing was read between the first step and the last"


def test_history_is_written_whole_and_a_header_where_nothing_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_empty_history(path, draft().supervision, "accuracy")
    _, rows = run(tmp_path / "run", epochs=1)
    assert path.read_text() == ",".join(rows[0]) + "\n"
    write_history(path, [{"epoch": 1, "loss": 1 / 3}, {"epoch": 2, "loss": 0.25}])
    assert path.read_text() == "epoch,loss\n1,0.333333\n2,0.25\n"


def test_lines_tell_figures_speed_and_time_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(tmp_path)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert len(lines) == 3
    assert lines[0].startswith("epoch 1/3  loss ")
    assert "train_accuracy" in lines[0]
    assert re.search(r"images/s, \d+:\d\d left$", lines[0])


def resnet18() -> Objective:
    torch.manual_seed(0)
    network = build_classifier(backbone="resnet18", num_classes=2, mean=[0.5] * 3, std=[0.25] * 3)
    return Supervised(network, supervision=CrossEntropy(("dark", "bright"), 0.0))


def drawn_steps() -> Objective:
    objective: Objective = make_objective(flow={"num_steps": (1, 2), "num_steps_warmup": 0})
    return objective


@pytest.mark.parametrize(
    ("objective", "precision"),
    [(draft, "fp32"), (draft, "bf16"), (draft, "fp16"), (resnet18, "bf16"), (drawn_steps, "fp32")],
)
@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_a_training_uses_nothing_that_pytorch_will_take_away(
    objective: Callable[[], Objective], precision: str, tmp_path: Path
) -> None:
    size = (32, 32) if objective is resnet18 else (6, 5)
    _, rows = run(tmp_path, objective(), precision=precision, epochs=1, split=make_split(16, size), ema_decay=0.9)
    assert math.isfinite(rows[0]["loss"])


def test_seeds_differ_by_name_and_epoch() -> None:
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1), derive_seed(0, "a", 2)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert math.log2(max(seeds)) > 40
