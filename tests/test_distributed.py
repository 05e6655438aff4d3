"""Several processes that train together, as torchrun starts them, against one process."""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.global_batch_norm import GlobalBatchNorm, synchronize_batch_norms
from pipeline.core import distributed
from pipeline.core.distributed import all_gather, all_reduce_sum, broadcast, local_shard
from tests.bench import SMALL, Bench, taught_bench
from tests.helpers import ROOT

WriteParams = Callable[[dict[str, Any]], Path]
CHANGES: dict[str, Any] = {
    "distill_student.training.epochs": 2,
    "distill_student.training.optimizer.learning_rate": 0.02,
    "distill_student.training.augment.horizontal_flip": True,
    "distill_student.training.ema_decay": 0.9,
    "distill_student.flow.num_steps": [1, 2],
}


def torchrun(folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run ``command`` (arguments of torchrun) as two processes in ``folder``."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240)


def distill_command(bench: Bench, out: str, changes: dict[str, Any]) -> list[str]:
    """Return the stage's module and arguments."""
    params = bench.write({**SMALL, **CHANGES, **changes})
    paths = {"data": "data", "teacher": "teacher", "out": out, "metrics": f"{out}.json", "history": f"{out}.csv"}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(bench.folder / path))]
    return ["-m", "stages.distill_student", "--params", str(params), *options]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("distributed"))


STEPS = """
import sys
import torch
from pipeline.data.augmentation import Batch
from pipeline.core.distributed import is_main, local_shard, process_group
from pipeline.training.optim import build_optimizer
from pipeline.training.step import TrainingStep
from tests.test_objectives import make_teacher, variant
from tests.test_optim import COSINE, OPTIMIZER

torch.set_num_threads(1)
with process_group(torch.device("cpu")):
    results = {}
    for name, loss in (("fm_kt", "dist"), ("fm_kt_theta", "dkd"), ("ofm_kt", "dist"), ("fm_kt on features", "pkd")):
        objective = variant(name, loss=loss, teacher=make_teacher().double())
        network = objective.network.double()
        rule = build_optimizer(network, steps_per_epoch=5, epochs=1, schedule=COSINE, **OPTIMIZER)
        step = TrainingStep(
            objective, *rule, precision="fp32", clip_norm=1.0, average=None, device=torch.device("cpu")
        )
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            images = torch.rand(8, 3, 8, 8, generator=generator, dtype=torch.float64)
            share = local_shard(0, 8)
            torch.manual_seed(1)
            step(Batch(images[share], (torch.arange(8) % 4)[share]), 0)
        results[name] = network.state_dict()
    if is_main():
        torch.save(results, sys.argv[1])
"""


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    """In float64: losses over the batch, normalisation, clipping and updates are those of the whole batch."""
    script = tmp_path / "steps.py"
    script.write_text(STEPS)
    result = torchrun(tmp_path, str(script), "both.pt")
    assert result.returncode == 0, result.stderr
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script, "one.pt"], cwd=tmp_path, env=environment, check=True, timeout=240)
    one, both = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "both"))
    assert set(one) == {"fm_kt", "fm_kt_theta", "ofm_kt", "fm_kt on features"}
    torch.testing.assert_close(both, one, rtol=1e-8, atol=1e-10)


def launched(bench: Bench, out: str, changes: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    """Run the stage with ``execution.num_processes`` 2."""
    command = [sys.executable, *distill_command(bench, out, {"execution.num_processes": 2, **changes})]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(bench.folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)


def test_one_parameter_launches_processes_that_train_what_one_trains(bench: Bench) -> None:
    """The stage as users launch it; the history is that of all images."""
    alone = bench.distill(CHANGES)
    assert alone.exit_code == 0, alone.output
    result = launched(bench, "shared", {})
    assert result.returncode == 0, result.stderr
    one, both = (load_file(bench.folder / name / "model.safetensors") for name in ("student", "shared"))
    torch.testing.assert_close(both, one, rtol=0, atol=5e-3)  # float32 rounding, grown over eight steps
    rows, rows_of_both = (
        [line.split(",") for line in (bench.folder / f"{name}.csv").read_text().splitlines()]
        for name in ("student", "shared")
    )
    assert rows[0] == rows_of_both[0]
    figures, figures_of_both = (
        torch.tensor([[float(x) for x in row] for row in table[1:]]) for table in (rows, rows_of_both)
    )
    torch.testing.assert_close(figures_of_both, figures, rtol=2e-3, atol=2e-3)
    assert bench.json("shared.json")["engine"]["num_processes"] == 2
    assert len(re.findall(r"epoch 1/2", result.stderr)) == 1, "one process reports"
    assert not list(bench.folder.glob(".checkpoints/distill_student/*/epoch*")), "they are cleared at the end"


def test_a_batch_that_cannot_be_shared_keeps_its_exit_code(bench: Bench) -> None:
    result = launched(bench, "odd", {"distill_student.training.batch_size": 33})
    assert result.returncode == 2, result.stderr
    assert "error: " in result.stderr
    assert "distill_student.training.batch_size: got 33, which execution.num_processes = 2 cannot share" in result.stderr
    result = torchrun(bench.folder, *distill_command(bench, "odd", {"distill_student.training.batch_size": 33}))
    assert result.returncode == 1, "that of torchrun"
    assert "error: batch_size: got 33, which 2 processes cannot share equally" in result.stderr
    assert not (bench.folder / "odd").exists()


def test_the_failure_of_one_process_ends_all_with_its_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("""
import torch
from torch import distributed
from pipeline.core.distributed import process_group, all_reduce_sum
from pipeline.core.errors import GateError
from stages.common import exit_codes

@exit_codes
def main():
    with process_group(torch.device("cpu")):
        if distributed.get_rank() == 1:
            raise GateError("the second process cannot go on")
        all_reduce_sum(torch.ones(1))  # waits for the other

main()
""")
    result = torchrun(tmp_path, str(script))
    assert result.returncode == 1
    assert "error: the second process cannot go on" in result.stderr


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shares_are_disjoint_and_cover_everything_once(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.distributed, "get_world_size", lambda: processes)
    for start, count in ((0, 12), (24, 12), (5, 7), (0, 1)):
        taken = []
        for rank in range(processes):
            monkeypatch.setattr(distributed.distributed, "get_rank", lambda rank=rank: rank)
            taken += list(range(100))[local_shard(start, count)]
        assert taken == list(range(start, start + count))


def test_one_process_exchanges_nothing() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert all_gather(x, dim=1) is all_reduce_sum(x) is broadcast(x) is x
    assert local_shard(4, 3) == slice(4, 7)


def test_global_batch_normalisation_equals_pytorchs_on_the_whole_batch() -> None:
    """The first of two processes; what the other adds to mean and variance comes from its share, by hand."""
    torch.manual_seed(0)
    x = 3 * torch.randn(8, 4, 3, 3, dtype=torch.float64) + 1
    plain = nn.BatchNorm2d(4).double()
    nn.init.normal_(plain.weight)
    network = nn.Sequential(copy.deepcopy(plain))
    other = x[4:].clone()
    sums = iter([other.mean(dim=(0, 2, 3)), (other - x.mean(dim=(0, 2, 3), keepdim=True)).square().mean(dim=(0, 2, 3))])
    synchronize_batch_norms(network, all_reduce_sum=lambda own: own + next(sums), num_processes=2)
    layer = network[0]
    assert isinstance(layer, GlobalBatchNorm)
    torch.testing.assert_close(layer(x[:4]), plain(x)[:4])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer, name), getattr(plain, name))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))
