"""torch.compile for the networks of an objective."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

import torch
from torch import nn

from models.backbones.backbone import Backbone
from models.meta_encoder import LayerEncoder, MetaEncoder
from pipeline.core.errors import UserError

logger = logging.getLogger(__name__)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
LIMIT = 64
"""Variants of one function that may be compiled: stages of teacher and student share the code of their containers."""


def wants_compiling(choice: str, device: torch.device) -> bool:
    """Return whether ``choice`` (auto, always, never) means to compile: auto does on CUDA."""
    return choice == "always" or (choice == "auto" and device.type == "cuda")


@contextlib.contextmanager
def compiled_networks(*networks: nn.Module) -> Iterator[None]:
    """Let ``torch.compile`` make backbones and meta-encoders faster, from their first call to the end of the block."""
    import torch._dynamo  # takes seconds

    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # tells the compiler as well
    with torch._dynamo.config.patch(recompile_limit=LIMIT):  # noqa: SLF001
        for module in _compilable(networks):
            if isinstance(module, Backbone):
                module.compile_stages()
            else:
                module.body.compile(dynamic=False)
        try:
            yield
        finally:
            decompile_networks(networks)


def decompile_networks(networks: Iterable[nn.Module]) -> None:
    """Let backbones and meta-encoders run as they are from here on."""
    for module in _compilable(networks):
        if isinstance(module, Backbone):
            module.decompile_stages()
        else:
            module.body._compiled_call_impl = None  # noqa: SLF001  (PyTorch has no public way back)


def _compilable(networks: Iterable[nn.Module]) -> Iterator[Backbone | MetaEncoder | LayerEncoder]:
    for network in networks:
        for module in network.modules():
            if isinstance(module, Backbone | MetaEncoder | LayerEncoder):
                yield module


def guard_compiling(
    step: Callable[Arguments, Result], networks: Iterable[nn.Module], *, fallback: bool
) -> Callable[Arguments, Result]:
    """Return ``step``, whose calls compile ``networks``; where that fails, ``fallback`` says to go on without.

    The first call is not the only one that compiles: so does the one with which a frozen backbone begins to learn.

    Raises:
        UserError: (a call) compiling failed and ``fallback`` is False.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return step(*args, **kwargs)
        except (TorchDynamoException, InductorError) as error:
            reason = " ".join(str(error).split())[:300]
            if not fallback:
                raise UserError(
                    f"execution.compile: torch.compile failed here ({reason}); set it to never, or "
                    "execution.compile_fallback to true to go on without"
                ) from error
            logger.warning("torch.compile failed here; training goes on without it (%s)", reason)
            decompile_networks(networks)
            return step(*args, **kwargs)

    return guarded


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run networks as they are as long as the block lasts: other batch sizes would be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield
