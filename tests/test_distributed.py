"""Several processes that train together, as torchrun starts them, against one process."""

import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.global_batch_norm import GlobalBatchNorm, synchronize_batch_norms
from pipeline.comparison.plan import Trial
from pipeline.comparison.runner import run_all
from pipeline.core import distributed
from pipeline.core.distributed import all_gather, all_reduce_sum, broadcast, local_shard
from tests.helpers import ROOT
from tests.two_processes import LOSSES, take_steps
from workbench.bench import Bench, taught_bench

pytestmark = pytest.mark.slow

CHANGES: dict[str, Any] = {
    "base.device": "cpu",
    "distill_student.training.epochs": 2,
    "distill_student.training.optimizer.learning_rate": 0.02,
    "distill_student.training.augment.horizontal_flip": True,
    "distill_student.training.ema_decay": 0.9,
    "distill_student.flow.num_steps": [1, 2],
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("distributed"))


def run_module(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m`` with ``words`` in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder)}
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def launched(bench: Bench, out: str, changes: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    """Run the stage ``distill_student`` with ``execution.num_processes`` 2."""
    changes = {**CHANGES, "execution.num_processes": 2, **changes}
    paths = {"out": out, "metrics": f"{out}.json", "history": f"{out}.csv"}
    return run_module(bench.folder, *bench.command("distill_student", changes, **paths))


def test_two_processes_take_the_steps_of_one_and_the_failure_of_one_ends_both(tmp_path: Path) -> None:
    """In float64: losses over the batch, normalisation, clipping and updates are those of the whole batch."""
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.two_processes"]
    result = run_module(tmp_path, *torchrun, "both.pt")
    assert result.returncode == 1, result.stderr
    assert "error: the second process cannot go on" in result.stderr
    both, one = torch.load(tmp_path / "both.pt"), take_steps()
    assert both["weights"].keys() == LOSSES.keys()
    torch.testing.assert_close(both["weights"], one, rtol=1e-8, atol=1e-10)
    assert both["shapes"] == [(0, 4), (3, 4)]


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
    assert bench.json("shared.json")["execution"]["num_processes"] == 2
    assert len(re.findall(r"epoch 1/2", result.stderr)) == 1, "one process reports"
    assert not re.search("FutureWarning|DeprecationWarning", result.stderr), result.stderr
    assert not list(bench.folder.glob(".checkpoints/distill_student/*/epoch*")), "they are cleared at the end"


def test_each_process_stores_the_logits_of_its_shard(bench: Bench) -> None:
    """Both epochs of a second run read all of them, and end with the bits of the run that stored them."""
    changes = {"distill_student.stored_views": 1}
    first = launched(bench, "stored", changes)
    assert first.returncode == 0, first.stderr
    (store,) = bench.folder.glob(".checkpoints/teacher_logits/*")
    assert sorted(path.name for path in store.iterdir()) == ["view-00000.shard-0", "view-00000.shard-1"]
    again = launched(bench, "again", changes)
    assert again.returncode == 0, again.stderr
    one, other = (load_file(bench.folder / name / "model.safetensors") for name in ("stored", "again"))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_wrong_parameter_keeps_its_message_and_its_exit_code(bench: Bench) -> None:
    result = launched(bench, "odd", {"distill_student.training.batch_size": 33})
    assert result.returncode == 2, result.stderr
    assert "error: batch_size: got 33, which 2 processes cannot share equally; give a multiple" in result.stderr
    assert not (bench.folder / "odd").exists()


def test_a_training_that_diverges_in_two_processes_is_a_finding_of_a_comparison(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that diverges in one process is: its values lose, and nothing has failed."""
    rate = "distill_student.training.optimizer.learning_rate"
    words = bench.command("distill_student", {**CHANGES, "execution.num_processes": 2, rate: 1e30}, out="endless")
    trial = Trial(name="t", folder=bench.folder, commands=[words], method="fm_kt", seed=0, values={rate: 1e30})
    monkeypatch.setattr(Trial, "fingerprint", lambda _: "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(bench.folder)
    run_all([trial], jobs=1)
    how = trial.diverged()
    assert how is not None
    assert how.startswith("training diverged: the loss is not finite at step "), how


def test_what_another_process_sends_is_not_unpickled() -> None:
    program = torch.frombuffer(bytearray(pickle.dumps(Path.cwd, protocol=2)), dtype=torch.uint8)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        distributed._from_bytes(program)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_shards_are_disjoint_and_cover_everything_once(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
    synchronize_batch_norms(network, all_reduce_sum=lambda own: own + next(sums), world_size=2)
    layer = network[0]
    assert isinstance(layer, GlobalBatchNorm)
    torch.testing.assert_close(layer(x[:4]), plain(x)[:4])
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(layer, name), getattr(plain, name))
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))
