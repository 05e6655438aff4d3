"""How many sampling steps a batch takes in training."""

from collections.abc import Sequence

import torch

from .core.numbers import epoch_of, is_count, positive


class StepSampler:
    """One number of steps, or one drawn from several for each batch.

    Early on the larger ones wait: in epoch e, counted from 0, N is at most the largest power of two not above
    (e + warmup_epochs) / warmup_epochs (the authors' rule with 10 epochs), and at least the smallest choice.

    Raises:
        ValueError: there is no choice, one is less than 1, or ``warmup_epochs`` less than 0.
    """

    def __init__(self, choices: Sequence[int], warmup_epochs: int = 0) -> None:
        if not isinstance(choices, Sequence) or not choices or not all(is_count(choice) for choice in choices):
            got = choices[0] if isinstance(choices, Sequence) and len(choices) == 1 else choices
            raise ValueError(f"num_steps: got {got!r}; give an int of at least 1, or several")
        if warmup_epochs != 0 and not is_count(warmup_epochs):
            raise ValueError(f"num_steps_warmup: got {warmup_epochs!r}; give an int, a number of epochs, 0 for none")
        self.choices = sorted(choices)
        self.warmup_epochs = warmup_epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins.

        Raises:
            ValueError: it is no int, or less than 0.
        """
        self.epoch = epoch_of(epoch)

    def allowed(self) -> list[int]:
        """Return the numbers of steps that may be drawn in the present epoch."""
        if not self.warmup_epochs:
            return self.choices
        cap = 2 ** (((self.epoch + self.warmup_epochs) // self.warmup_epochs).bit_length() - 1)
        return [n for n in self.choices if n <= cap] or [min(self.choices)]

    def draw(self) -> int:
        """Return the number of steps of one batch, drawn by PyTorch's generator where there are several."""
        allowed = self.allowed()
        return allowed[int(torch.randint(len(allowed), ()))] if len(allowed) > 1 else allowed[0]

    def count(self, num_steps: int | None) -> int:
        """Return ``num_steps`` where a caller gives them, and draw them where it gives None.

        Raises:
            ValueError: they are less than 1.
        """
        return self.draw() if num_steps is None else positive("num_steps", num_steps)

    @property
    def largest(self) -> int:
        """Return the largest number of steps."""
        return max(self.choices)
