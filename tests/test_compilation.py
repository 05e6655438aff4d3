"""torch.compile: the same training, and what happens where it cannot work."""

import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn

from models.backbones.backbone import Backbone, Stage
from models.classifier import Classifier
from models.layers.shape_transform import LogitTransform
from pipeline.core.errors import UserError
from pipeline.core.settings import Base
from pipeline.core.torch_setup import set_up_torch
from pipeline.tasks.classification.training import CrossEntropy
from pipeline.training.compilation import compiled_networks, wants_compiling
from pipeline.training.objective import Supervised
from tests.toy_objectives import make_objective, tune
from tests.toy_training import run

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
    return Supervised(network, supervision=CrossEntropy(("dark", "bright"), 0.0))


@pytest.fixture(autouse=True)
def _compiler_as_it_was() -> Iterator[None]:
    yield
    torch.set_deterministic_debug_mode("default")
    with compiled_networks():  # tells the compiler
        pass


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_compiler_is_as_deterministic_as_the_rest(*, deterministic: bool) -> None:
    import torch._inductor.config as inductor

    set_up_torch("x", Base(device="cpu", deterministic=deterministic, num_threads=None))
    with compiled_networks():
        assert (torch.are_deterministic_algorithms_enabled(), inductor.deterministic) == (deterministic,) * 2


@pytest.mark.slow
@needs_compiler
def test_compiled_training_is_the_same_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "vec_isa_ok", False)  # spares six programs that try the CPU's instructions
    (eager, rows), (compiled, compiled_rows) = (
        run(tmp_path / str(flag), objective(), compiled=flag) for flag in (False, True)
    )
    assert [row["loss"] for row in compiled_rows] == pytest.approx([row["loss"] for row in rows], rel=1e-4)
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert list(eager.state_dict()) == list(compiled.state_dict()), "weights keep their names"


@pytest.fixture
def compiled_graphs(monkeypatch: pytest.MonkeyPatch) -> list[fx.GraphModule]:
    """Return what is compiled, as it happens: by a compiler that leaves everything as it is."""
    found: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, inputs: Sequence[object]) -> Callable[..., Any]:  # noqa: ARG001
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiler))
    torch.compiler.reset()
    return found


def test_stages_and_meta_encoders_are_compiled_in_training_alone(
    tmp_path: Path, compiled_graphs: list[fx.GraphModule]
) -> None:
    """Any other batch size, as that of validation, would be compiled anew."""
    objective = make_objective("fm_kt")
    run(tmp_path, objective, compiled=True, epochs=2)
    expected = 3 + 3 + 1  # stages of student and teacher, and one meta-encoder
    assert len(compiled_graphs) == expected
    with torch.no_grad():
        for images in (torch.rand(16, 3, 6, 5), torch.rand(5, 3, 6, 5)):
            assert objective.student(images, 2).shape == (len(images), 4)
            objective.teacher(images)
    assert len(compiled_graphs) == expected, "networks run as they are once training has ended"
    torch.compile(torch.sin)(torch.rand(3))
    assert len(compiled_graphs) == expected + 1, "what others compile is compiled"


@needs_compiler
def test_without_a_compiler_it_stops_unless_it_may_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("/no/such/compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False)
    torch.compiler.reset()
    refusal = r"execution.compile: torch.compile failed here .*set it to never, or execution.compile_fallback to true"
    with pytest.raises(UserError, match=refusal):
        run(tmp_path / "stops", objective(), compiled=True)
    torch.compiler.reset()
    with caplog.at_level(logging.WARNING):
        _, rows = run(tmp_path / "goes on", objective(), compiled=True, compile_fallback=True)
    assert "torch.compile failed here; training goes on without it" in caplog.text
    assert rows == run(tmp_path / "eager", objective())[1]


@pytest.mark.parametrize("fallback", [True, False])
def test_compiling_may_fail_where_a_frozen_backbone_begins_to_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, fallback: bool
) -> None:
    """It is compiled anew there, in an epoch that is not the first."""

    def compiler(graph: fx.GraphModule, inputs: Sequence[object]) -> Callable[..., Any]:  # noqa: ARG001
        if any(tuned.network.get_parameter(name).requires_grad for name in tuned.names):
            raise RuntimeError("no gradient of this")
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiler))
    torch.compiler.reset()
    trained = objective()
    tuned = tune(trained, frozen_epochs=1)
    changes: dict[str, Any] = {"compiled": True, "fine_tuning": tuned.settings}
    if fallback:
        run(tmp_path, trained, **changes, compile_fallback=True)
        assert "torch.compile failed here; training goes on without it" in caplog.text
    else:
        with pytest.raises(UserError, match=r"execution.compile: torch.compile failed here .*no gradient of this"):
            run(tmp_path, trained, **changes)


def test_compiled_a_frozen_backbone_learns_what_it_learns_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch 2.11 itself takes a graph without gradients for one that has them."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()

    def trained(*, compiled: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a weight of the backbone before and after."""
        small = objective()
        tuned = tune(small, frozen_epochs=1)
        weight = tuned.network.get_parameter(min(tuned.names))
        before = weight.detach().clone()
        run(tmp_path / str(compiled), small, compiled=compiled, fine_tuning=tuned.settings)
        return before, weight.detach()

    before, eager = trained(compiled=False)
    assert not torch.equal(before, eager)
    torch.testing.assert_close(trained(compiled=True)[1], eager)


def test_compiling_is_for_gpus_unless_it_is_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [wants_compiling(choice, gpu) for choice in ("auto", "always", "never")] == [True, True, False]
    assert [wants_compiling(choice, cpu) for choice in ("auto", "always", "never")] == [False, True, False]
