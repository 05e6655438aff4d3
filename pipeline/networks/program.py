"""Networks that are programs: images in, outputs out, and nothing inside that could be trained or cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.core.calling import call
from models.layers.normalize import Normalize
from pipeline.core.errors import UserError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
CHANNELS = 3
ROUNDING = 1e-2
"""Share of the largest output by which one may differ in a batch of another size, in float16 too."""
CONTRACT = "a program must take one batch of RGB images, (N, 3, H, W) or (N, H, W, 3), as float32, float16 or uint8"


class Session(Protocol):
    """A program that is ready to run on a device."""

    shape: Sequence[int | None]
    """Of its input; None: any."""
    dtype: str
    """Of its input, as PyTorch and NumPy call it."""
    num_parameters: int

    def run(self, images: Tensor) -> Tensor:
        """Return the outputs of one batch in its own layout, type and size."""


class Program(nn.Module, ABC):
    """A network whose weights are the bytes of a file: it is saved and loaded like any other network.

    Args:
        num_bytes: of the file.
        output: the name of what it returns, where it returns more than one tensor.
        num_outputs: values that it returns of an image.
        chosen: those of them that are meant, in their order; None: all, as they are.
        mean, std: of each channel of images in [0, 1], by which they are normalised before; None: they are not.
        returns_probabilities: whether its outputs are probabilities, whose logarithms are taken.
    """

    file: Tensor

    def __init__(
        self,
        *,
        num_bytes: int,
        output: str,
        num_outputs: int,
        chosen: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        returns_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("file", torch.zeros(num_bytes, dtype=torch.uint8))
        self.normalize = Normalize(mean, std) if mean is not None and std is not None else nn.Identity()
        self.output = output
        self.num_outputs = num_outputs
        self.chosen = None if chosen is None else list(chosen)
        self.returns_probabilities = returns_probabilities
        self._session: Session | None = None

    @abstractmethod
    def open(self, data: bytes, device: torch.device) -> Session:
        """Return the program ``data``, ready to run on ``device``.

        Raises:
            UserError: it is damaged, or cannot run here.
        """

    @property
    def session(self) -> Session:
        """Return the program, ready to run where its bytes lie; it is opened once."""
        if self._session is None:
            self._session = self.open(self.file.cpu().numpy().tobytes(), self.file.device)
        return self._session

    @property
    def num_parameters(self) -> int:
        """Return the number of values of its weights."""
        return self.session.num_parameters

    def forward(self, images: Tensor) -> Tensor:
        """Return the chosen outputs (B, ...), float32, for ``images`` (B, 3, H, W) in [0, 1]."""
        outputs = self.all_outputs(images)
        return outputs if self.chosen is None else outputs[:, self.chosen]

    def all_outputs(self, images: Tensor) -> Tensor:
        """Return outputs (B, num_outputs), float32, for ``images`` (B, 3, H, W) in [0, 1]."""
        taken = self._as_taken(call(self.normalize, images))
        size = self.session.shape[0]
        parts = torch.split(taken, size or max(len(taken), 1))
        outputs = torch.cat([self._run(part, size or len(part)) for part in parts]).to(images.device).float()
        return outputs.clamp(min=torch.finfo(torch.float32).tiny).log() if self.returns_probabilities else outputs

    def _as_taken(self, images: Tensor) -> Tensor:
        """Return ``images`` in the layout and the type that the program takes."""
        shape, dtype = self.session.shape, DTYPES[self.session.dtype]
        if dtype == torch.uint8:
            images = (255 * images).round()
        images = images.to(dtype)
        return (images.permute(0, 2, 3, 1) if is_channels_last(shape) else images).contiguous()

    def _run(self, part: Tensor, size: int) -> Tensor:
        """Return the outputs of ``part``; where the program takes ``size`` images at a time it is filled up."""
        missing = size - len(part)
        filled = functional.pad(part, (0, 0) * (part.dim() - 1) + (0, missing)) if missing else part
        return self.session.run(filled)[: len(part)]


def is_channels_last(shape: Sequence[int | None]) -> bool:
    """Return whether an input of ``shape`` has its channels at the end; where nothing tells they stand before H, W."""
    return shape[-1] == CHANNELS and shape[1] != CHANNELS


def check_program(network: Program, image_size: Sequence[int], *, normalized: bool) -> None:
    """Raise UserError, without the parameter's name, where ``network`` does not fit images of ``image_size`` (H, W).

    It is run on two random images: what it returns must be finite values of the right number, the same again, and
    the same for one image alone.

    Args:
        normalized: whether images are normalised before it.
    """
    shape, dtype = network.session.shape, network.session.dtype
    shown = f"{dtype} ({', '.join('any' if size is None else str(size) for size in shape)})"
    if len(shape) != 4 or dtype not in DTYPES:
        raise UserError(f"takes {shown}; {CONTRACT}")
    channels, size = (shape[3], shape[1:3]) if is_channels_last(shape) else (shape[1], shape[2:])
    if channels not in (None, CHANNELS):
        raise UserError(f"takes {shown}; {CONTRACT}")
    if any(fixed not in (None, ours) for fixed, ours in zip(size, image_size, strict=True)):
        raise UserError(
            f"takes images of {_sides(size)} pixels, these have {_sides(image_size)}; set prepare_data.image_size, or "
            "export it for any size"
        )
    if dtype == "uint8" and normalized:
        raise UserError("takes pixels as uint8; set train_teacher.mean and std to null, it normalises them itself")
    images = torch.rand(2, CHANNELS, *image_size, generator=torch.Generator().manual_seed(0)).to(network.file.device)
    with torch.inference_mode():
        outputs, again, alone = (network.all_outputs(part) for part in (images, images, images[:1]))
    if outputs.dim() != 2 or outputs.shape[1] != network.num_outputs:
        raise UserError(
            f"returns {tuple(outputs.shape)} for 2 images; needed are {network.output} (2, {network.num_outputs}); a "
            "teacher of more classes needs train_teacher.classes"
        )
    if not bool(outputs.isfinite().all()):
        raise UserError("returns values that are not finite; check its weights, and train_teacher.mean and std")
    if not torch.equal(outputs, again):
        raise UserError("answers the same images differently each time (dropout?); export it in eval mode")
    if not torch.allclose(alone, outputs[:1], rtol=ROUNDING, atol=ROUNDING * float(outputs.abs().max())):
        raise UserError(
            "answers an image differently beside another one (batch normalisation in training?); export it in eval mode"
        )


def _sides(size: Sequence[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in size)


def are_probabilities(outputs: Tensor) -> bool:
    """Return whether each row of ``outputs`` (B, num_outputs) sums to 1, without a value below 0."""
    sums = outputs.float().sum(dim=1)
    return bool((outputs >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-2))
