"""torch.compile: the same training, and what happens where it cannot work."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from models.backbones.backbone import Backbone, Stage
from models.classifier import Classifier
from models.layers.shape_transform import LogitTransform
from pipeline.core.errors import UserError
from pipeline.core.torch_setup import set_up_torch
from pipeline.training.compilation import compile_networks, wants_compiling
from pipeline.training.objective import Supervised
from tests.test_training import run

COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="torch.compile on the CPU needs g++")


class Small(Backbone):
    """One convolution."""

    widths = (4,)

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def eager_stages(self) -> Sequence[Stage]:
        return [self.convolution]


def objective() -> Supervised:
    torch.manual_seed(0)
    network = Classifier(Small(), LogitTransform(4, 2), mean=[0.5] * 3, std=[0.25] * 3)
    return Supervised(network, label_smoothing=0.0)


@pytest.fixture(autouse=True)
def _compiling() -> Iterator[None]:
    """Let each test compile: a training ends with compiling switched off."""
    yield
    torch.compiler.set_stance("default")


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_compiler_is_as_deterministic_as_the_rest(*, deterministic: bool) -> None:
    import torch._inductor.config as inductor

    before = torch.get_deterministic_debug_mode()
    try:
        set_up_torch("x", seed=0, device="cpu", deterministic=deterministic, num_threads=None)
        compile_networks()
        assert (torch.are_deterministic_algorithms_enabled(), inductor.deterministic) == (deterministic,) * 2
    finally:
        torch.set_deterministic_debug_mode(before)
        compile_networks()


@needs_compiler
def test_compiled_training_is_the_same_training(tmp_path: Path) -> None:
    (eager, rows), (compiled, compiled_rows) = (
        run(tmp_path / str(flag), objective(), compiled=flag) for flag in (False, True)
    )
    assert [row["loss"] for row in compiled_rows] == pytest.approx([row["loss"] for row in rows], rel=1e-4)
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert list(eager.state_dict()) == list(compiled.state_dict()), "weights keep their names"


@needs_compiler
def test_without_a_compiler_it_stops_unless_it_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    torch._dynamo.reset()
    with pytest.raises(UserError, match=r"execution.compile: torch.compile failed here .*set it to never, or engine.comp"):
        run(tmp_path / "stops", objective(), compiled=True)
    torch._dynamo.reset()
    with caplog.at_level(logging.WARNING):
        _, rows = run(tmp_path / "goes on", objective(), compiled=True, compile_fallback=True)
    assert "torch.compile failed here; training goes on without it" in caplog.text
    assert rows == run(tmp_path / "eager", objective())[1]


def test_compiling_is_for_gpus_unless_it_is_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [wants_compiling(choice, gpu) for choice in ("auto", "always", "never")] == [True, True, False]
    assert [wants_compiling(choice, cpu) for choice in ("auto", "always", "never")] == [False, True, False]
