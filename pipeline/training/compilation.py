"""torch.compile for the networks of an objective."""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from models.backbones.backbone import Backbone
from models.meta_encoders import LayerEncoder, MetaEncoder
from pipeline.core.errors import UserError

logger = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
LIMIT = 64
"""Variants of one function that may be compiled: stages of teacher and student share the code of their containers."""


def wants_compiling(choice: str, device: torch.device) -> bool:
    """Return whether ``choice`` (auto, always, never) means to compile: auto does on CUDA."""
    return choice == "always" or (choice == "auto" and device.type == "cuda")


def compile_networks(*networks: nn.Module) -> None:
    """Let ``torch.compile`` make the stages of backbones and the bodies of meta-encoders faster, at their first call."""
    import torch._dynamo  # noqa: PLC0415  (takes seconds)

    torch._dynamo.config.recompile_limit = LIMIT  # noqa: SLF001
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler as well
    for network in networks:
        for module in network.modules():
            if isinstance(module, Backbone):
                module.compile_stages()
            elif isinstance(module, MetaEncoder | LayerEncoder):
                module.body.compile(dynamic=False)


def guard_first_call(step: Callable[Arguments, Result], *, fallback: bool) -> Callable[Arguments, Result]:
    """Return ``step``, whose first call compiles; where that fails, ``fallback`` says to go on without.

    Raises:
        UserError: (the first call) compiling failed and ``fallback`` is False.
    """
    calls = itertools.count()

    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if next(calls):
            return step(*args, **kwargs)
        return _compiling(lambda: step(*args, **kwargs), fallback=fallback)

    return guarded


def _compiling(call: Callable[[], Result], *, fallback: bool) -> Result:
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415
    from torch._inductor.exc import InductorError  # noqa: PLC0415

    try:
        return call()
    except (TorchDynamoException, InductorError) as error:
        reason = " ".join(str(error).split())[:300]
        if not fallback:
            raise UserError(
                f"execution.compile: torch.compile failed here ({reason}); set it to never, or execution.compile_fallback to "
                "true to go on without"
            ) from error
        logger.warning("torch.compile failed here; training goes on without it (%s)", reason)
        stop_compiling()
        return call()


def stop_compiling() -> None:
    """Let this process run its networks as they are from here on."""
    torch.compiler.set_stance("force_eager")


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run networks as they are as long as the block lasts: other batch sizes would be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield
