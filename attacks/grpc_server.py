"""Attack the server over gRPC: wrong messages, silent calls, too much metadata, while somebody asks for health."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import grpc
from tritonclient.grpc import service_pb2

from attacks.campaign import Attack, Outcome
from attacks.malformed import METHOD, grpc_case, send_grpc
from attacks.served import MAX_BYTES, MAX_JSON, Attacked, attacked

REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
LATE = {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
"""What silent calls end with."""
HEALTH = "/grpc.health.v1.Health/"
MALFORMED = "a wrong message"
WAIT_SECONDS = 20.0


def _ended(call: grpc.Future) -> str:
    try:
        call.result()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def _channel(address: str) -> grpc.Channel:
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def silent_calls(rng: Random, server: Attacked) -> str:
    """Open calls that send nothing; each must end by itself."""
    name = rng.choice([f"{METHOD}ModelInfer", f"{METHOD}ModelReady", f"{METHOD}ModelConfig", f"{HEALTH}Check"])
    until = time.monotonic() + WAIT_SECONDS

    def nothing() -> Iterator[bytes]:
        while time.monotonic() < until:
            time.sleep(0.05)
            if all(call.done() for call in calls):
                return
        yield from ()

    calls: list[grpc.Future] = []
    with _channel(server.server.grpc) as channel:
        for _ in range(rng.randint(1, 40)):
            calls.append(channel.stream_unary(name).future(nothing(), timeout=WAIT_SECONDS))  # noqa: PERF401
        statuses = {_ended(call) for call in calls}
    return "" if statuses <= LATE else f"{name}: {statuses}"


def half_closed(rng: Random, server: Attacked) -> str:
    """End calls without a message."""
    name = rng.choice([f"{METHOD}ModelInfer", f"{METHOD}ServerLive", f"{HEALTH}Check", f"{METHOD}ModelStreamInfer"])
    with _channel(server.server.grpc) as channel:
        status = _ended(channel.stream_unary(name).future(iter(()), timeout=WAIT_SECONDS))
    return "" if status in REFUSALS else f"{name}: {status}"


def much_metadata(rng: Random, server: Attacked) -> str:
    """Send metadata beyond all measure."""
    metadata = [(f"x{number}", "a" * rng.choice([100, 1000])) for number in range(rng.randint(100, 400))]
    with _channel(server.server.grpc) as channel:
        status = _ended(channel.unary_unary(f"{METHOD}ServerLive").future(b"", metadata=metadata, timeout=WAIT_SECONDS))
    return "" if status in REFUSALS else status


def many_fields(rng: Random, server: Attacked) -> str:
    """Send a message of many small fields, each of which takes far more memory than bytes."""
    field = rng.choice([b"\x2a\x00", b"\x32\x00", b"\x22\x00", b"\x3a\x00", b"\x2a\x04\x18\x01\x18\x01", b"\x78\x01"])
    count = (MAX_BYTES - 100) // len(field)
    with _channel(server.server.grpc) as channel:
        status = _ended(channel.unary_unary(f"{METHOD}ModelInfer").future(field * count, timeout=WAIT_SECONDS))
    return "" if status in REFUSALS else f"{field!r}: {status}"


def many_numbers(_: Random, server: Attacked) -> str:
    """Send more numbers beside raw_input_contents than are allowed."""
    message = service_pb2.ModelInferRequest(model_name=server.target.model)
    entry = message.inputs.add(name="image", datatype="FP32", shape=[1, *server.target.shape])
    entry.contents.fp32_contents.extend([0.5] * (MAX_JSON // 4 + 1))
    with _channel(server.server.grpc) as channel:
        call = channel.unary_unary(f"{METHOD}ModelInfer").future(message.SerializeToString(), timeout=WAIT_SECONDS)
        status = _ended(call)
    return "" if status == "RESOURCE_EXHAUSTED" else status


def watchers(rng: Random, server: Attacked) -> str:
    """Watch health from many calls, some of it under names that are none; the first message must come."""
    with _channel(server.server.grpc) as channel:
        calls = [
            channel.unary_stream(f"{HEALTH}Watch")(rng.choice([b"", b"\n\x01x"])) for _ in range(rng.randint(1, 30))
        ]
        first = next(iter(calls[-1]))
        for call in calls:
            call.cancel()
    return "" if first in {b"\x08\x01", b"\x08\x03"} else repr(first)


KINDS: dict[str, Callable[[Random, Attacked], str]] = {
    "calls that say nothing": silent_calls,
    "calls that end without a message": half_closed,
    "too much metadata": much_metadata,
    "a message of many fields": many_fields,
    "a message of many numbers": many_numbers,
    "many that watch health": watchers,
}


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    """Start a server and yield what attacks it."""
    with attacked() as server, _channel(server.server.grpc) as kept:

        def attack(rng: Random, _: Path) -> Outcome:
            kind = rng.choice([*KINDS, MALFORMED, MALFORMED, MALFORMED])
            if kind == MALFORMED:
                case = grpc_case(rng, server.target)
                status = send_grpc(kept, case)
                return server.judged(f"{kind}: {case.kind}", "" if status in REFUSALS else f"{status}: {case}"[:500])
            with server.observed() as missing:
                fault = KINDS[kind](rng, server)
            healthy = kept.unary_unary(f"{HEALTH}Check")(b"", timeout=WAIT_SECONDS) == b"\x08\x01"
            return server.judged(kind, fault or ("" if healthy else "health over gRPC"), "; ".join(missing))

        yield attack
