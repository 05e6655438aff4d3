"""The device that a stage works on; PyTorch's own check of what may become current is run as it is."""

import pytest
import torch
from torch._utils import _get_device_index

from pipeline.core.settings import Base
from pipeline.core.torch_setup import set_up_torch


@pytest.fixture
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(_get_device_index(device)))
    chosen.clear()


chosen: list[int] = []


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize(("name", "index"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_becomes_current_by_its_index(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert set_up_torch("x", Base(device=name, num_threads=None)) == torch.device("cuda", index)
    assert chosen == [index]


def test_a_cpu_has_no_index() -> None:
    assert set_up_torch("x", Base(device="cpu", num_threads=None)) == torch.device("cpu")


def test_deterministic_work_fills_no_tensor_that_is_written_anyway() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]  # as PyTorch has it
    try:
        set_up_torch("x", Base(device="cpu", deterministic=True, num_threads=None))
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    finally:
        torch.set_deterministic_debug_mode("default")


@pytest.mark.parametrize(("cores", "environment", "threads"), [(2, None, 2), (8, None, 3), (2, "3", 3)])
def test_all_cores_are_those_of_a_containers_quota(
    cores: int, environment: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.core.torch_setup.num_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    torch.set_num_threads(3)
    set_up_torch("x", Base(device="cpu", num_threads=None))
    assert torch.get_num_threads() == threads
