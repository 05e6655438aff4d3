"""Ask a server for its health while it is abused, and look at its memory.

    python -m benchmarks.server_abuse --seconds 10 --output results.json
    python -m benchmarks.server_abuse --code ../before      # the same against the server of another checkout

At once: heads without an end, connections that say nothing, requests sent ahead whose answers nobody reads, calls over
gRPC without a message, the largest JSON bodies that the server takes. Meanwhile health is asked for over both
transports, each time over a new connection; afterwards requests are sent, and memory is compared.
"""

import contextlib
import functools
import http.client
import json
import multiprocessing
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import grpc
import numpy as np

from attacks.memory import largest_mib, resident_mib
from benchmarks.measuring import output_option, write_result
from workbench.serving_helpers import NAME, SIZE, ServerProcess, make_package, random_images, serving

GRPC_LIVE = "/inference.GRPCInferenceService/ServerLive"
GRPC_INFER = "/inference.GRPCInferenceService/ModelInfer"
INFER = f"/v2/models/{NAME}/infer"
FIRST = 500
"""Requests before its memory at rest is looked at."""


class Address(NamedTuple):
    """Where a server is."""

    http: str
    grpc: str


def place(address: Address) -> tuple[str, int]:
    host, _, port = address.http.rpartition(":")
    return host, int(port)


class Abuse:
    """Processes that each do one thing again and again until they are told to end."""

    def __init__(self, address: Address, kinds: dict[str, tuple[Callable[..., None], int]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.ending = context.Event()
        self.counts = {kind: context.Value("i", 0) for kind in kinds}
        self.processes = [
            context.Process(target=repeat, args=(work, address, self.ending, self.counts[kind], threads), daemon=True)
            for kind, (work, threads) in kinds.items()
        ]

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Begin, and end on leaving."""
        for process in self.processes:
            process.start()
        while not all(count.value for count in self.counts.values()):
            time.sleep(0.05)
        try:
            yield
        finally:
            self.ending.set()
            for process in self.processes:
                process.join(10)
                process.kill()


def repeat(work: Callable[..., None], address: Address, ending: Any, count: Any, threads: int) -> None:
    """Do ``work`` again and again in so many threads."""

    def go_on() -> None:
        while not ending.is_set():
            with count.get_lock():
                count.value += 1
            with contextlib.suppress(OSError, http.client.HTTPException, grpc.RpcError):
                work(address, ending)

    workers = [threading.Thread(target=go_on, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def endless_head(address: Address, ending: Any) -> None:
    with socket.create_connection(place(address), timeout=5) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: ")
        for _ in range(400):
            connection.sendall(b"a" * 2**19)
            if ending.is_set():
                return


def silent_connections(address: Address, ending: Any) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(socket.create_connection(place(address), timeout=5))
            if number % 2:
                connection.sendall(b"POST /v2 HTTP/1.1\r\nX")
        ending.wait(5)


def unread_answers(address: Address, ending: Any) -> None:
    request = b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(place(address), timeout=0.1)) for _ in range(50)]
        for connection in connections * 20:
            with contextlib.suppress(OSError):
                connection.sendall(request)
            if ending.is_set():
                return
        ending.wait(2)


def silent_calls(address: Address, ending: Any) -> None:
    def nothing() -> Iterator[bytes]:
        ending.wait(5)
        yield from ()

    with grpc.insecure_channel(address.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls = [channel.stream_unary(GRPC_INFER).future(nothing()) for _ in range(100)]
        ending.wait(5)
        for call in calls:
            call.cancel()


def json_of(limit: int) -> bytes:
    """Return the largest JSON body of at most ``limit`` bytes."""
    start, value = b'{"inputs":[{"name":"image","shape":[1,3,8,8],"datatype":"FP32","data":[0.12345', b",0.1234567"
    return start + value * ((limit - len(start) - 4) // len(value)) + b"]}]}"


def large_json(limit: int, address: Address, _: Any) -> None:
    connection = http.client.HTTPConnection(*place(address), timeout=30)
    try:
        connection.request("POST", INFER, json_of(limit))
        connection.getresponse().read()
    finally:
        connection.close()


def ask_http(address: Address) -> bool:
    connection = http.client.HTTPConnection(*place(address), timeout=10)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def ask_grpc(address: Address) -> bool:
    with grpc.insecure_channel(address.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return bool(channel.unary_unary(GRPC_LIVE)(b"", timeout=10) == b"\x08\x01")


def ask_kept(channel: grpc.Channel) -> bool:
    return bool(channel.unary_unary(GRPC_LIVE)(b"", timeout=10) == b"\x08\x01")


def observe(address: Address, seconds: float) -> dict[str, Any]:
    """Return for each way to ask for health how long it took, and how often there was no answer."""
    results: dict[str, Any] = {}
    with grpc.insecure_channel(address.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        ways: dict[str, Callable[[], bool]] = {
            "HTTP": lambda: ask_http(address),
            "gRPC": lambda: ask_kept(channel),
            "gRPC, new connection": lambda: ask_grpc(address),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        failed = dict.fromkeys(ways, 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for way, ask in ways.items():
                started = time.perf_counter()
                try:
                    failed[way] += not ask()
                except (OSError, http.client.HTTPException, grpc.RpcError):
                    failed[way] += 1
                times[way].append((time.perf_counter() - started) * 1e3)
                time.sleep(0.01)
    for way, spent in times.items():
        p50, p99, most = np.percentile(spent, [50, 99, 100]).round(1).tolist()
        results[way] = {"asked": len(spent), "failed": failed[way], "p50": p50, "p99": p99, "max": most}
    return results


def send_requests(address: Address, count: int) -> int:
    """Send so many small requests over one connection; return how many were answered well."""
    connection, right = http.client.HTTPConnection(*place(address), timeout=10), 0
    raw = random_images(1).tobytes()
    entry = {"name": "image", "datatype": "FP32", "shape": [1, 3, SIZE, SIZE]}
    text = json.dumps({"inputs": [entry | {"parameters": {"binary_data_size": len(raw)}}]}).encode()
    for _ in range(count):
        try:
            connection.request("POST", INFER, text + raw, {"Inference-Header-Content-Length": str(len(text))})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            break  # a server that has not recovered
        right += answer.status == 200
    connection.close()
    return right


def run(server: ServerProcess, seconds: float, requests: int, only: tuple[str, ...]) -> dict[str, Any]:
    limits, address = server.wait_for("ready")["limits"], Address(server.http, server.grpc)
    process = server.process.pid
    results: dict[str, Any] = {"requests answered": send_requests(address, min(requests, FIRST))}
    memory = {"at rest": resident_mib(process)}
    results["quiet"] = observe(address, min(seconds, 5))
    kinds: dict[str, tuple[Callable[..., None], int]] = {
        "heads without an end": (endless_head, 2),
        "silent connections": (silent_connections, 2),
        "answers that nobody reads": (unread_answers, 1),
        "silent calls": (silent_calls, 2),
        "the largest JSON": (functools.partial(large_json, limits.get("max_json_bytes", limits["max_bytes"])), 3),
    }
    abuse = Abuse(address, {kind: work for kind, work in kinds.items() if not only or kind in only})
    with abuse.going_on():
        results["abused"] = observe(address, seconds)
    results["abuses"] = {kind: count.value for kind, count in abuse.counts.items()}
    memory |= {"most": largest_mib(process), "after": resident_mib(process)}
    results["requests answered"] += send_requests(address, requests)
    memory[f"after {requests} requests"] = resident_mib(process)
    results["MiB"] = {moment: round(mib, 1) for moment, mib in memory.items()}
    results["exit code"] = server.stop()
    return results


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="Of abuse.")
@click.option("--requests", default=20000, show_default=True, help="After it.")
@click.option("--code", type=click.Path(path_type=Path), help="Checkout whose server is abused.  [default: this one]")
@click.option("--package", type=click.Path(path_type=Path), help="Folder of a package.  [default: a small one]")
@output_option
@click.option("--only", multiple=True, help="These kinds of abuse alone.")
@click.argument("options", nargs=-1)
def main(
    seconds: float,
    requests: int,
    only: tuple[str, ...],
    code: Path | None,
    package: Path | None,
    output: Path | None,
    options: tuple[str, ...],
) -> None:
    """Print health and memory; what follows -- goes to the server."""
    with tempfile.TemporaryDirectory() as folder:
        start = "from stages.commands.serve import serve; serve()"
        if code is not None:
            start = f"import sys; sys.path.insert(0, {str(code.resolve())!r}); {start}"
        served = package or make_package(Path(folder) / "package")
        with serving(served, *options, code=start) as server:
            results = run(server, seconds, requests, only)
    for moment in ("quiet", "abused"):
        for way, row in results[moment].items():
            click.echo(f"{moment:7} {way:22} {json.dumps(row)}")
    click.echo(json.dumps({key: results[key] for key in ("abuses", "MiB", "requests answered", "exit code")}))
    write_result(output, config={"seconds": seconds, "requests": requests, "only": only}, **results)


if __name__ == "__main__":
    main()
