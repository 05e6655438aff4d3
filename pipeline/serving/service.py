"""The core of the server, which no transport owns: admission, limits, inference, statistics, what clients may ask."""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.serving.deadlines import TimeLimit
from pipeline.serving.logs import log
from pipeline.serving.metrics import Meters
from pipeline.serving.models import VERSION, Run, ServedModel
from pipeline.serving.pictures import BYTES, read_files
from pipeline.serving.refusal import Reason, RefusalError, quoted
from pipeline.serving.requests import (
    InferRequest,
    InferResponse,
    OutputTensor,
    Transport,
    WantedOutput,
    checked_outputs,
)
from pipeline.serving.statistics import Timing
from pipeline.serving.tensors import InputTensor, classified, only_input, read_batch, require_finite
from pipeline.serving.workers import Result, Workers

logger = logging.getLogger(__name__)

PROTOCOL = "2"
"""The server's version is that of the protocol; which package it serves, the models' names and the log say."""
CLASSIFICATION = "classification"
"""The extension for models one of whose outputs has a value for each class."""
EXTENSIONS = ["binary_tensor_data", CLASSIFICATION, "model_configuration", "model_repository", "statistics"]
SILENCE = 0.3
"""Seconds for which a request may pause on its way here while others want its place."""
LOGGED_ID = 128
"""Characters of a request's id that the log repeats."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on."""

    max_batch: int
    """Images in a request."""
    max_bytes: int
    """Bytes of a request's body, also once it is decompressed."""
    max_picture_bytes: int
    """Bytes of an image file."""
    max_json_bytes: int
    """Bytes of a request's JSON."""
    max_connections: int
    """Of each transport."""
    max_queue: int
    """Requests that may wait for a worker, or still send their body."""
    timeout: float
    """Seconds from a request's arrival to its answer."""
    workers: int
    """Requests that are computed at the same time."""


@dataclass
class Entry:
    """A request on its way through the server."""

    transport: Transport
    started: int
    """In nanoseconds of ``time.perf_counter_ns``."""
    deadline: float
    """In seconds of the event loop's clock, which is too coarse to time by."""
    model: str = ""
    """Empty until it is known that there is one of that name."""
    id: str = ""
    batch: int = 0
    timing: Timing | None = None
    """Both known once the model has run."""


class Work(NamedTuple):
    """What a worker is to do for a request."""

    batch: int
    """How many images it is of."""
    run: Callable[[], Run]
    expected_ns: float | None
    """About how many nanoseconds it takes; None: nobody knows."""


class Arrival(TimeLimit):
    """The wait for what a client is sending of a request, which others may end if nothing comes.

    Raises:
        RefusalError: it was not there by the request's deadline, or paused while others wanted its place.
    """

    def __init__(self, arrivals: "dict[Arrival, None]", deadline: float) -> None:
        super().__init__(deadline)
        self._arrivals = arrivals
        self.heard = asyncio.get_running_loop().time()
        """When something last came, in seconds of the event loop's clock."""

    async def __aenter__(self) -> None:
        self._arrivals[self] = None
        await super().__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        self._arrivals.pop(self, None)
        try:
            await super().__aexit__(*raised)
        except TimeoutError as error:
            raise RefusalError(Reason.SLOW, "the body did not arrive in time") from error


class Service:
    """The models of a server and the requests that it has accepted.

    Args:
        facts: what the package says of itself, its ``name`` among it.
        gauges: numbers for the metrics that others know.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        limits: Limits,
        facts: Mapping[str, str],
        **gauges: tuple[str, Callable[[], float]],
    ) -> None:
        self.facts = facts
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.workers = Workers(limits.workers)
        self.reader = Workers(1)
        self.draining = self.stopping = False
        self.arrivals: dict[Arrival, None] = {}  # the longest waiting first
        self.num_accepted = 0
        """Requests that are not answered yet."""
        self.meters = Meters(
            {model.name: model.statistics for model in models},
            VERSION,
            fmkt_accepted_requests=("Accepted requests, not yet answered", lambda: self.num_accepted),
            fmkt_ready=("1 while the server wants requests", lambda: self.is_ready),
            **gauges,
        )

    @property
    def is_ready(self) -> bool:
        """Whether further requests are wanted; some that come nevertheless are still taken while it drains."""
        return not (self.draining or self.stopping)

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return the model ``name``; an empty version is any.

        Raises:
            RefusalError: there is no such model or version.
        """
        model = self.models.get(name)
        if model is None:
            known = ", ".join(self.models)
            raise RefusalError(Reason.NOT_FOUND, f"model {quoted(name)}: no such model; this server has {known}")
        if version not in {"", VERSION}:
            raise RefusalError(Reason.NOT_FOUND, f"model {name!r}: no version {quoted(version)}, only {VERSION}")
        return model

    @contextlib.contextmanager
    def accepted(self, transport: Transport) -> Iterator[Entry]:
        """Count, time and log a request from its arrival to its answer.

        Raises:
            RefusalError: the server is stopping, or as many requests wait as may wait.
        """
        entry = Entry(transport, time.perf_counter_ns(), seconds_from_now(self.limits.timeout))
        outcome, status, reason = "internal", transport.failure, None
        self.num_accepted += 1
        try:
            self._admit()
            yield entry
            outcome, status = "success", transport.success
        except RefusalError as error:
            outcome, status, reason = error.reason.value, transport.statuses[error.reason], str(error)
            error.is_logged = True
            raise
        except asyncio.CancelledError:
            outcome, status = "cancelled", transport.cancelled
            raise
        finally:
            self.num_accepted -= 1
            ns = time.perf_counter_ns() - entry.started
            record = functools.partial(self._record, entry, ns, outcome=outcome, status=status, reason=reason)
            asyncio.get_running_loop().call_soon(record)  # once the answer is written, which must not wait for it

    def _admit(self) -> None:
        if self.stopping:
            raise RefusalError(Reason.STOPPING, "the server is shutting down")
        if self.num_accepted > self.limits.workers + self.limits.max_queue and not self._displaced():
            raise RefusalError(Reason.OVERLOADED, "too many requests are waiting; try again later")

    def _displaced(self) -> bool:
        """End the wait for a request of which nothing has come for a while; return whether there was one."""
        silent_since = asyncio.get_running_loop().time() - SILENCE
        silent = next((arrival for arrival in self.arrivals if arrival.heard < silent_since), None)
        if silent is None:
            return False
        del self.arrivals[silent]
        silent.end()
        return True

    def arriving(self, entry: Entry) -> "Arrival":
        """Return what bounds the wait for what a client is sending of a request."""
        return Arrival(self.arrivals, entry.deadline)

    async def read(self, work: Callable[[], Result], deadline: float, *, is_brief: bool) -> Result:
        """Return what ``work`` reads; what may take more than a millisecond a thread does, one after the other.

        Raises:
            RefusalError: it is wrong, or the deadline has passed.
        """
        return work() if is_brief else await self.reader.run(work, deadline, expected_ns=None)

    def _record(self, entry: Entry, ns: int, *, outcome: str, status: object, reason: str | None) -> None:
        self.meters.add_request(entry.model, entry.transport.name, outcome)
        if entry.model:
            statistics = self.models[entry.model].statistics
            if entry.timing is not None:
                statistics.add_execution(entry.batch, entry.timing)
                self.meters.add_execution(entry.model, entry.batch, entry.timing)
            (statistics.success if outcome == "success" else statistics.fail).add(ns)
        log(
            logger,
            "request",
            id=entry.id[:LOGGED_ID],
            model=entry.model,
            transport=entry.transport.name,
            status=status,
            outcome=outcome,
            reason=reason,
            ms=round(ns / 1e6, 3),
        )

    async def infer(self, request: InferRequest, entry: Entry) -> InferResponse:
        """Return the results of ``request``.

        Raises:
            RefusalError: something about it is wrong, or its time ran out.
        """
        begun = time.perf_counter_ns()
        entry.id = request.id
        model = self.find(request.model, request.version)
        entry.model = model.name
        wanted = checked_outputs(request, model.outputs, model.task.classification_output)
        if request.timeout is not None:
            entry.deadline = min(entry.deadline, seconds_from_now(request.timeout))
        work = self._work(only_input(request.inputs, model.input), model, entry)
        entry.batch = work.batch
        queued = time.perf_counter_ns()
        run = await self.workers.run(work.run, entry.deadline, expected_ns=work.expected_ns)
        ended = time.perf_counter_ns()
        outputs = _answered(run, wanted, model)
        entry.timing = _timing(begun, queued, run, ended)
        return InferResponse(model.name, VERSION, request.id, outputs)

    def _work(self, tensor: InputTensor, model: ServedModel, entry: Entry) -> Work:
        """Return what a request makes to do."""
        limits = self.limits
        if tensor.datatype == BYTES:
            files = read_files(tensor, max_batch=limits.max_batch, max_bytes=limits.max_picture_bytes)
            return Work(len(files), functools.partial(model.run_files, files, until=_until(entry.deadline)), None)
        batch = read_batch(tensor, model.input, limits.max_batch)
        return Work(len(batch), functools.partial(model.run, batch), model.statistics.expected_ns(len(batch)))

    async def predict(
        self, model: ServedModel, file: bytes, entry: Entry, *, top: int | None, min_score: float | None
    ) -> dict[str, Any]:
        """Return what ``model`` sees on an image file, as ``fmkt predict --json`` says it.

        Raises:
            RefusalError: it is no picture that can be decoded, or its time ran out.
        """
        begun = time.perf_counter_ns()
        work = functools.partial(model.predict, file, top=top, min_score=min_score, until=_until(entry.deadline))
        run, prediction = await self.workers.run(work, entry.deadline, expected_ns=None)
        entry.batch, entry.timing = 1, _timing(begun, begun, run, run.ended)
        return prediction.found

    def metadata(self) -> dict[str, Any]:
        """Return the protocol's server metadata."""
        has_classes = any(model.task.classification_output for model in self.models.values())
        extensions = [name for name in EXTENSIONS if has_classes or name != CLASSIFICATION]
        return {"name": "fmkt", "version": PROTOCOL, "extensions": extensions}

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """Return the protocol's index of models; ``only_ready`` leaves out those that take no requests."""
        state = "READY" if self.is_ready else "UNAVAILABLE"
        reason = "" if self.is_ready else "shutting down"
        entry = {"version": VERSION, "state": state, "reason": reason}
        return [] if only_ready and not self.is_ready else [{"name": name, **entry} for name in self.models]

    def config(self, name: str, version: str) -> dict[str, Any]:
        """Return the protocol's configuration of a model; raises RefusalError as ``find`` does."""
        return self.find(name, version).config(self.limits.max_batch, self.limits.workers, self.facts)

    def statistics(self, name: str, version: str) -> dict[str, Any]:
        """Return the protocol's statistics of a model, or of all where ``name`` is empty; raises as ``find`` does."""
        models = [self.find(name, version)] if name else list(self.models.values())
        return {"model_stats": [model.statistics.to_json(model.name, VERSION) for model in models]}

    def close(self) -> None:
        """Drop what still waits for a thread."""
        self.workers.close()
        self.reader.close()

    async def drain(self) -> None:
        """Take no more requests and return when those that were accepted are answered."""
        self.stopping = True
        while self.num_accepted:
            await asyncio.sleep(0.01)


def seconds_from_now(seconds: float) -> float:
    """Return a moment of the event loop's clock."""
    return asyncio.get_running_loop().time() + seconds


def _until(deadline: float) -> float:
    """Return the moment ``deadline`` of the event loop's clock as one of ``time.monotonic``, which threads can read."""
    return time.monotonic() + deadline - asyncio.get_running_loop().time()


def _timing(begun: int, queued: int, run: Run, ended: int) -> Timing:
    """Return how long the parts of an answer took, decoding as part of its input."""
    return Timing(
        queued - begun + run.started - run.taken,
        run.taken - queued,
        run.ended - run.started,
        time.perf_counter_ns() - ended,
    )


def _answered(run: Run, wanted: Sequence[WantedOutput], model: ServedModel) -> list[OutputTensor]:
    """Return what of a run was asked for; raises RefusalError where a value of an output is not finite."""
    require_finite(run.outputs, "these values" if run.placements is None else "these pictures")
    datatypes = {spec.name: spec.datatype for spec in model.outputs}
    answers = []
    for output in wanted:
        array, datatype = run.outputs[output.name], datatypes[output.name]
        if output.num_largest:
            array, datatype = classified(array, output.num_largest, model.classes.names), BYTES
        answers.append(OutputTensor(output.name, datatype, array, output.binary))
    return answers
