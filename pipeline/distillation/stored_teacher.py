"""A teacher whose answers are kept on disk: it runs in the first epochs, whose batches then come again."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from pipeline.core.distributed import is_first_of_host, local_shard, world_size
from pipeline.core.errors import UserError, written_file
from pipeline.core.files import Json
from pipeline.data.batch import Batch
from pipeline.data.dataset import DataInfo
from pipeline.data.epoch_order import EpochOrder
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.record_file import RecordFile
from pipeline.training.checkpoints import checkpoints_root, fingerprint
from pipeline.training.settings import Training

logger = logging.getLogger(__name__)

FOLDER = "teacher_logits"
KEPT_BYTES = 16 * 2**30
"""So much of what other trainings have stored is kept beside the present one's."""
VALUE_SIZE = 4
"""Bytes of a logit in float32, the largest type in which a training computes."""


class StoredTeacher(FrozenTeacher):
    """A teacher that computes the outputs of each batch once, where it has been given a folder to keep them in.

    They are kept in the type in which they were computed, so that what is read equals what was computed, bit for bit.
    What is missing or damaged on disk is computed again.

    Args:
        num_views: after so many epochs their batches come again.
    """

    def __init__(self, network: nn.Module, num_views: int) -> None:
        super().__init__(network)
        self.num_views: int = num_views
        self.folder: Path | None = None
        self.epoch = 0
        self._records: RecordFile | None = None
        self._told = False

    def keep_in(self, folder: Path) -> None:
        """Keep outputs in ``folder`` from here on, a file for each view and process."""
        self.folder = folder
        self.set_epoch(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Turn to the view of ``epoch``, counted from 0."""
        self.epoch = epoch
        self._told = False
        if self._records is not None:
            self._records.close()
        if self.folder is not None:
            rank = local_shard(0, world_size()).start
            path = self.folder / f"view-{epoch % self.num_views:05}.shard-{rank}"
            with written_file(path):
                self._records = RecordFile(path)

    def targets(self, batch: Batch) -> list[Tensor]:
        """Return the outputs of ``batch``, stored or computed."""
        if self._records is None:
            return super().targets(batch)
        stored = self._records.read(batch.number)
        if stored is not None:
            return [stored.to(batch.images.device)]
        if not self._told and (self._records.is_damaged or self.epoch >= self.num_views):
            self._told = True
            what = "damaged" if self._records.is_damaged else "missing"
            logger.info("%s: logits of the teacher are %s; computed anew", self._records.path, what)
        targets = super().targets(batch)
        with written_file(self._records.path):
            self._records.write(batch.number, targets[0])
        return targets


def store_logits(
    teacher: nn.Module | None, info: DataInfo, training: Training, facts: Json, inputs: Sequence[Path], *, code: str
) -> None:
    """Let ``teacher`` keep its logits where it is one that can; they are those of ``facts``, ``inputs`` and ``code``.

    They stay when the training has ended: another method learns from the same ones. The oldest of other trainings go
    where they take too much room. Each host keeps what its own processes see.

    Raises:
        UserError: the disk is too small.
    """
    if not isinstance(teacher, StoredTeacher):
        return
    count, least = sum(info.class_counts), training.min_epoch_steps
    order = EpochOrder(count, training.batch_size, min_steps=least, leaves_none_out=True)
    images, outputs = len(order) * order.batch_size, len(info.class_names)
    decisive = {name: getattr(training, name) for name in ("batch_size", "min_epoch_steps")}
    decisive["augment"] = training.augment.model_dump(mode="json")
    root = checkpoints_root() / FOLDER
    folder = root / fingerprint(facts | {"training": decisive}, inputs, code=code)
    if is_first_of_host():
        _make_room(folder, size_of=(teacher.num_views, images, outputs))
    teacher.keep_in(folder)


def _make_room(folder: Path, *, size_of: tuple[int, int, int]) -> None:
    """Say how much will be stored in ``folder``, remove what is too much beside it, and see that the disk suffices.

    Args:
        size_of: views, images, outputs of an image.
    """
    views, images, outputs = size_of
    needed = views * images * outputs * VALUE_SIZE
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)  # the last one used is the last to go
    others = sorted((path for path in folder.parent.iterdir() if path != folder), key=_last_used)
    while others and sum(map(_bytes_in, others)) + needed > KEPT_BYTES:
        logger.info("%s: older logits of a teacher, removed for new ones", others[0])
        shutil.rmtree(others.pop(0), ignore_errors=True)
    there, free = _bytes_in(folder), shutil.disk_usage(folder).free
    what = f"{views} x {images:,} images x {outputs:,} classes, {needed / 2**20:,.0f} MiB"
    if needed > free + there:
        raise UserError(
            f"distill_student.stored_views: {what} in {folder}, where {free / 2**20:,.0f} MiB are free; give fewer "
            "views, or null to run the teacher at each step"
        )
    logger.info("the teacher's logits are stored in %s: %s", folder, what)


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another training has just removed it
        return 0.0


def _bytes_in(folder: Path) -> int:
    return sum(map(_size_of, folder.glob("*")))


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another training has just removed it
        return 0
