"""Processes that decode images ahead of a training, into memory that they share with it."""

import contextlib
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.core.errors import LostProcessError, UserError
from pipeline.core.processes import end_with_parent
from pipeline.core.torch_setup import derive_seed
from pipeline.data.image_views import UNMOVED, View

CHUNK = 8
"""Images of a task: the processes share the work on one batch, so that few batches need memory."""
AHEAD = 2
"""Tasks for each process that wait, beside the batches that are done."""
LARGEST_MESSAGE = 2**16
SECONDS_TO_END = 2


class Seen(NamedTuple):
    """An image as a process has read it."""

    pixels: Tensor
    """uint8 (H, W, 3)."""
    view: View = UNMOVED
    """Where its pixels are, from where they would be without what is drawn."""


Read = Callable[[int, int], Seen]
"""From the position of an image and a seed to the image; raises UserError."""


class Wanted(NamedTuple):
    """The images of a batch."""

    positions: Sequence[int]
    first_place: int
    """Place of the first one in the epoch; that and ``seed`` decide what is random about an image."""
    seed: int


class _Task(NamedTuple):
    slot: int
    first_row: int
    wanted: Wanted


class ImageWorkers:
    """Processes that live as long as this object and read the images of one batch after another.

    The memory is anonymous: it takes nothing of /dev/shm, which containers keep small, and vanishes with the processes.
    They take tasks from one socket, each when it is free, and answer on a pipe of their own, whose end tells of a
    process that was killed.

    Args:
        num_workers: number of processes.
        shape: (B, H, W, 3), of the largest batch.
    """

    def __init__(self, read: Read, *, num_workers: int, shape: tuple[int, int, int, int]) -> None:
        self.num_workers = num_workers
        slots = 2 + math.ceil(num_workers * AHEAD * CHUNK / shape[0])
        memory = mmap.mmap(-1, slots * math.prod(shape))
        self._images = torch.frombuffer(memory, dtype=torch.uint8).view(slots, *shape)
        views = mmap.mmap(-1, slots * shape[0] * len(UNMOVED) * torch.float64.itemsize)
        self._views = torch.frombuffer(views, dtype=torch.float64).view(slots, shape[0], len(UNMOVED))
        self._open = [0] * slots
        """Tasks of each slot that are not answered yet."""
        self._read = read
        self._processes: dict[Connection, BaseProcess] = {}
        self._tasks: socket.socket | None = None

    def load(self, batches: Iterable[Wanted]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images (B, H, W, 3) of each batch in their order, and their views (B, 4), a ``View`` in each row.

        They last until the next ones are asked for.

        Raises:
            UserError: an image cannot be read.
            LostProcessError: a process has ended.
        """
        if self._tasks is None:
            self._start()
        self._drain()
        wanted = iter(batches)
        free, begun = deque(range(len(self._open))), deque[tuple[int, int]]()
        self._begin(wanted, free, begun)
        while begun:
            slot, count = begun.popleft()
            while self._open[slot]:
                self._receive()
            yield self._images[slot, :count], self._views[slot, :count]
            free.append(slot)
            self._begin(wanted, free, begun)

    def _begin(self, wanted: Iterator[Wanted], free: deque[int], begun: deque[tuple[int, int]]) -> None:
        """Hand out the tasks of further batches, one for each slot that is free."""
        while free and (batch := next(wanted, None)) is not None:
            slot, count = free.popleft(), len(batch.positions)
            begun.append((slot, count))
            for row in range(0, count, CHUNK):
                part = Wanted(batch.positions[row : row + CHUNK], batch.first_place + row, batch.seed)
                self._open[slot] += 1
                assert self._tasks is not None
                with contextlib.suppress(BrokenPipeError):  # all have ended: the next answer says so
                    self._tasks.send(pickle.dumps(_Task(slot, row, part)))

    def _receive(self) -> None:
        """Take the answers that there are, at least one."""
        faults = []
        for connection in wait(list(self._processes)):
            assert isinstance(connection, Connection)
            try:
                slot, fault = connection.recv()
            except (EOFError, ConnectionResetError) as error:
                process = self._processes[connection]
                process.join(timeout=1)
                raise LostProcessError.while_doing("decodes training images", process.exitcode) from error
            self._open[slot] -= 1
            faults += [fault] if fault else []
        if faults:
            raise UserError(faults[0])

    def _drain(self) -> None:
        """Wait for what is left of an epoch that was not taken to its end."""
        while any(self._open):
            with contextlib.suppress(UserError):
                self._receive()

    def _start(self) -> None:
        self._tasks, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fork = multiprocessing.get_context("fork")  # nothing is copied that is not written to
        for _ in range(self.num_workers):
            answers, end = fork.Pipe(duplex=False)
            arguments = (self._read, (self._images, self._views), self._tasks, theirs, end, os.getpid())
            process = fork.Process(target=_work, args=arguments, daemon=True)
            process.start()
            end.close()
            self._processes[answers] = process
        theirs.close()
        weakref.finalize(self, _stop, self._tasks, self._processes)


def _work(
    read: Read,
    shared: tuple[Tensor, Tensor],
    ours: socket.socket,
    tasks: socket.socket,
    answers: Connection,
    parent: int,
) -> None:
    """Read the images of one task after another until the other side closes the socket."""
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the training decides
    ours.close()
    torch.set_num_threads(1)
    images, views = shared
    while message := tasks.recv(LARGEST_MESSAGE):
        task = pickle.loads(message)  # noqa: S301  (from the process that started this one)
        fault = None
        for i, position in enumerate(task.wanted.positions):
            place = task.slot, task.first_row + i
            try:
                seen = read(position, derive_seed(task.wanted.seed, task.wanted.first_place + i))
                images[place], views[place] = seen.pixels, torch.tensor(seen.view, dtype=torch.float64)
            except UserError as error:
                fault = str(error)
        answers.send((task.slot, fault))


def _stop(tasks: socket.socket, processes: dict[Connection, BaseProcess]) -> None:
    tasks.close()  # which ends them
    for connection, process in processes.items():
        process.join(timeout=SECONDS_TO_END)
        process.kill()  # one that was stopped, or hangs in a file system, must not hold the run
        connection.close()
