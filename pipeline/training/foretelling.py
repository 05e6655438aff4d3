"""What a step of a training takes, by its first ones: what the time of all is foretold from."""

import time
from typing import NamedTuple

import torch

from pipeline.core.distributed import local_world_size
from pipeline.core.other_programs import OtherPrograms

FORETELLING = 10
"""Steps from which the time of all is foretold."""


class StepTime(NamedTuple):
    """What a step took."""

    seconds: float
    others: float
    """Share of the CPU that other programs took meanwhile, and slowed it by that."""


class FirstSteps:
    """The first steps of a training, but for the very first, which starts workers and compiles."""

    def __init__(self) -> None:
        self.taken = 0
        self.began = 0.0
        self.others: OtherPrograms | None = None

    def step(self) -> StepTime | None:
        """Take note of a step, and return what one takes when enough of them are done, once."""
        self.taken += 1
        if self.taken == 1:
            wait_for_device()
            self.others = watch_others()
            self.began = time.perf_counter()
        elif self.taken == 1 + FORETELLING and self.others is not None:
            wait_for_device()
            return StepTime((time.perf_counter() - self.began) / FORETELLING, self.others.share())
        return None


def watch_others() -> OtherPrograms:
    """Return what watches the programs beside this training from now on."""
    return OtherPrograms(threads=torch.get_num_threads(), processes=local_world_size())


def wait_for_device() -> None:
    """Wait until what has been asked of the GPU, where there is one in use, is done."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
