"""The protocol over HTTP."""

import asyncio
import functools
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.core.errors import UserError
from pipeline.package.predict import require_min_score
from pipeline.serving.access import UNKNOWN, Access
from pipeline.serving.json_text import BRIEF
from pipeline.serving.logs import Incidents
from pipeline.serving.page import HEADERS as PAGE_HEADERS
from pipeline.serving.page import build_page
from pipeline.serving.refusal import Reason, RefusalError, invalid, quoted
from pipeline.serving.requests import InferRequest, Transport
from pipeline.serving.service import Arrival, Entry, Service, seconds_from_now
from pipeline.serving.sockets import address_text
from pipeline.serving.wire import (
    HEADER_LENGTH,
    JSON_TYPE,
    decompressed,
    json_size,
    read_json,
    read_request,
    too_large,
    too_much_json,
    write_response,
)
from pipeline.tasks.base import Task

HTTP = Transport(
    "http",
    success=200,
    failure=500,
    cancelled=499,
    statuses={
        Reason.INVALID: 400,
        Reason.NOT_FOUND: 404,
        Reason.UNSUPPORTED: 400,
        Reason.ENCODING: 415,
        Reason.TOO_LARGE: 413,
        Reason.SLOW: 408,
        Reason.OVERLOADED: 503,
        Reason.STOPPING: 503,
        Reason.DEADLINE: 504,
    },
)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REFUSED = {
    "/v2/repository/models/{model}/load": "models are loaded when the server starts",
    "/v2/repository/models/{model}/unload": "models are loaded when the server starts",
    "/v2/systemsharedmemory/{rest:path}": "shared memory is not offered; send the data in the request",
    "/v2/cudasharedmemory/{rest:path}": "shared memory is not offered; send the data in the request",
    "/v2/trace/setting": "tracing is not offered",
    "/v2/models/{model}/trace/setting": "tracing is not offered",
    "/v2/logging": "log settings are those of the server's command line",
}
"""Extensions of the protocol that are not offered."""

Endpoint = Callable[[Request], Awaitable[Response]]


def answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return ``content`` as JSON."""
    return Response(json.dumps(content), status, headers, JSON_TYPE)


OPEN_PATHS = {"/", "/v2/health/live", "/v2/health/ready"}
"""Those that ask for no token: the page asks for it itself."""


class Guarded:
    """An application that answers those alone who have the token."""

    def __init__(self, app: ASGIApp, access: Access, incidents: Incidents) -> None:
        self.app = app
        self.access = access
        self.incidents = incidents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        app: ASGIApp = self.app
        if scope["path"] not in OPEN_PATHS:
            given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not self.access.allows(given):
                log_refusal(self.incidents, scope, 401, self.access.why_not(given))
                app = answer({"error": UNKNOWN}, 401, {"www-authenticate": "Bearer"})
        await app(scope, receive, send)


def log_refusal(incidents: Incidents, scope: Scope, status: int, reason: str) -> None:
    """Log that a request was refused; its query and its fields, one of which may hold the token, are left out."""
    where = {"address": address_text(scope["client"]), "path": scope["path"]}
    incidents.log("refused", transport=HTTP.name, **where, status=status, reason=reason)


def build_app(service: Service, access: Access, incidents: Incidents) -> ASGIApp:
    """Return the application that answers HTTP requests; ``incidents`` are those that are no request for inference."""
    endpoints = Endpoints(service)
    refusals = Refusals(incidents)
    model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    routes = [Route(f"{place}/infer", endpoints.infer, methods=["POST"]) for place in (model, version)]  # the busiest
    routes += [Route(path, endpoints.predict, methods=["POST"]) for path in ("/predict", "/predict/{model}")]
    routes += [
        Route("/", endpoints.page),
        Route("/v2", endpoints.metadata),
        Route("/v2/health/live", endpoints.live),
        Route("/v2/health/ready", endpoints.ready),
        Route("/v2/models/stats", endpoints.statistics),
        Route("/v2/repository/index", endpoints.index, methods=["POST"]),
        Route("/metrics", endpoints.metrics),
    ]
    for place in (version, model):
        routes += [
            Route(place, endpoints.model_metadata),
            Route(f"{place}/ready", endpoints.model_ready),
            Route(f"{place}/config", endpoints.config),
            Route(f"{place}/stats", endpoints.statistics),
        ]
    routes += [Route(path, _refusing(text), methods=["GET", "POST"]) for path, text in REFUSED.items()]
    handlers: dict[Any, Any] = {RefusalError: refusals.refused, HTTPException: refusals.no_route, 500: failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app if access.is_open else Guarded(app, access, incidents)


class Refusals:
    """The answers to requests that are refused, each of which is logged once."""

    def __init__(self, incidents: Incidents) -> None:
        self.incidents = incidents

    async def refused(self, request: Request, error: RefusalError) -> Response:
        """Answer a request that was refused."""
        status = HTTP.statuses[error.reason]
        if not error.is_logged:
            log_refusal(self.incidents, request.scope, status, str(error))
        return answer({"error": str(error)}, status)

    async def no_route(self, request: Request, error: HTTPException) -> Response:
        """Answer a request for a path or with a method that does not exist."""
        log_refusal(self.incidents, request.scope, error.status_code, f"{request.method}: {error.detail}")
        headers = dict(error.headers or {})
        allowed = headers.get("Allow")
        hint = "GET / names the paths" if allowed is None else f"it takes {allowed}"
        text = f"{request.method} {request.url.path[:200]}: {error.detail}; {hint}"
        return answer({"error": text}, error.status_code, headers)


async def failed(_: Request, error: Exception) -> Response:
    """Answer a request that the server itself failed at; the log has the traceback."""
    return answer({"error": f"the server failed ({type(error).__name__})"}, 500)


def _refusing(text: str) -> Endpoint:
    async def refuse(_: Request) -> Response:
        raise RefusalError(Reason.UNSUPPORTED, text)

    return refuse


MAX_INDEX_BYTES = 2**16
"""Of a question for the repository's index, which holds one word."""


class Endpoints:
    """What each path answers."""

    def __init__(self, service: Service) -> None:
        self.service = service
        models = list(service.models.values())
        has_scores = any(model.task.least_score is not None for model in models)
        self.html = build_page(service.facts, list(service.models), has_scores=has_scores)

    async def page(self, _: Request) -> Response:
        """Return the page for people."""
        return Response(self.html, headers=PAGE_HEADERS)

    async def metadata(self, _: Request) -> Response:
        """Describe the server, and the package, of which the protocol knows nothing."""
        return answer({**self.service.metadata(), "package": self.service.facts})

    async def live(self, _: Request) -> Response:
        """Say that the process answers."""
        return answer({"live": True})

    async def ready(self, _: Request) -> Response:
        """Say whether requests are taken."""
        return answer({"ready": self.service.is_ready}, 200 if self.service.is_ready else 503)

    async def model_ready(self, request: Request) -> Response:
        """Say whether a model takes requests."""
        name = self.service.find(*_model(request)).name
        return answer({"name": name, "ready": self.service.is_ready}, 200 if self.service.is_ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """Describe a model."""
        return answer(self.service.find(*_model(request)).metadata())

    async def config(self, request: Request) -> Response:
        """Return a model's configuration."""
        return answer(self.service.config(*_model(request)))

    async def statistics(self, request: Request) -> Response:
        """Return the statistics of a model, or of all."""
        return answer(self.service.statistics(*_model(request)))

    async def index(self, request: Request) -> Response:
        """List the models."""
        arrival = Arrival({}, seconds_from_now(self.service.limits.timeout))
        body = await read_body(request, MAX_INDEX_BYTES, arrival)
        only_ready = read_json(body, MAX_INDEX_BYTES).get("ready", False) if body else False
        if not isinstance(only_ready, bool):
            raise invalid("ready: expected true or false")
        return answer(self.service.index(only_ready=only_ready))

    async def metrics(self, _: Request) -> Response:
        """Return the metrics for Prometheus."""
        return Response(self.service.meters.exposition(), headers={"content-type": METRICS_TYPE})

    async def infer(self, request: Request) -> Response:
        """Infer."""
        with self.service.accepted(HTTP) as entry:
            body, headers = await self._infer(request, entry)
        return Response(body, headers=headers)

    async def _infer(self, request: Request, entry: Entry) -> tuple[bytes, dict[str, str]]:
        limits, encoding = self.service.limits, _encoding(request)
        name, version = _model(request)
        entry.model = self.service.find(name, version).name
        header_length = request.headers.get(HEADER_LENGTH)
        limit, beyond = limits.max_bytes, too_large
        if header_length is None and limits.max_json_bytes < limit:
            limit, beyond = limits.max_json_bytes, too_much_json
        body = await read_body(request, limit, self.service.arriving(entry), beyond)

        def read() -> InferRequest:
            content = decompressed(body, encoding, limit)
            return read_request(content, header_length, name, version, max_json_bytes=limits.max_json_bytes)

        is_brief = not encoding and json_size(len(body), header_length) <= BRIEF
        content = await self.service.read(read, entry.deadline, is_brief=is_brief)
        return write_response(await self.service.infer(content, entry))

    async def predict(self, request: Request) -> Response:
        """Say what is seen on the image file that is the body."""
        with self.service.accepted(HTTP) as entry:
            found = await self._predict(request, entry)
        return answer(found)

    async def _predict(self, request: Request, entry: Entry) -> dict[str, Any]:
        limits = self.service.limits
        model = self.service.find(request.path_params.get("model") or next(iter(self.service.models)))
        entry.model = model.name
        asked = read_question(request.query_params.multi_items(), model.task)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise RefusalError(Reason.UNSUPPORTED, f"forms are not taken; send the image file as the body: {EXAMPLE}")
        limit = min(limits.max_bytes, limits.max_picture_bytes)
        body, encoding = await read_body(request, limit, self.service.arriving(entry)), _encoding(request)
        read = functools.partial(decompressed, body, encoding, limit)
        file = await self.service.read(read, entry.deadline, is_brief=not encoding)
        return await self.service.predict(model, bytes(file), entry, **asked)


EXAMPLE = "curl --data-binary @image.jpg"


def _top(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ValueError("expected a whole number above 0")
    return int(text)


def _score(text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise ValueError("expected a number from 0 to 1")
    return score


QUESTIONS: dict[str, Callable[[str], Any]] = {"top": _top, "min_score": _score}
"""What the query of a prediction may say, and what reads it."""


def read_question(query: Sequence[tuple[str, str]], task: Task) -> dict[str, Any]:
    """Return the values of ``QUESTIONS`` in ``query``, whose defaults are those of ``task``.

    Raises:
        RefusalError: there is something else in it, something twice, or a wrong value.
    """
    found: dict[str, Any] = {}
    for name, text in query:
        if name not in QUESTIONS:
            raise invalid(f"{quoted(name)}: no such question; known are {', '.join(QUESTIONS)}")
        if name in found:
            raise invalid(f"{name}: asked for twice")
        try:
            found[name] = QUESTIONS[name](text)
        except ValueError as error:
            raise invalid(f"{name}: got {quoted(text)}, {error}") from error
    try:
        require_min_score(task, found.get("min_score"), "min_score")
    except UserError as error:
        raise invalid(str(error)) from error
    return {"top": task.top, "min_score": None} | found


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _encoding(request: Request) -> str:
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


async def read_body(
    request: Request, max_bytes: int, arrival: Arrival, beyond: Callable[[int], RefusalError] = too_large
) -> bytearray:
    """Return the body of ``request``, reading no more than ``max_bytes``.

    Args:
        beyond: makes the refusal of a larger one.

    Raises:
        RefusalError: it is larger, breaks off, or does not arrive in time.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or len(declared) > 19 or int(declared) > max_bytes:
        raise beyond(max_bytes)
    body, loop = bytearray(), asyncio.get_running_loop()
    try:
        async with arrival:
            async for part in request.stream():
                body += part
                if len(body) > max_bytes:
                    raise beyond(max_bytes)
                arrival.heard = loop.time()
    except ClientDisconnect as error:
        raise invalid("the connection broke off before the body was complete") from error
    return body
