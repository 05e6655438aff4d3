"""What the server costs beside the network itself, and whether it loses or mixes up anything under load.

    python -m benchmarks.serving                      # an untrained wrn_16_2 with four steps of the conv meta-encoder
    python -m benchmarks.serving --package artifacts/package
    python -m benchmarks.serving --output benchmarks/results/serving.json

The server is the process that ``python -m stages serve`` starts, on loopback, one thread a session. Latency: blocks of
calls of a session in this process and of tritonclient over HTTP (binary and JSON) and gRPC take turns; the ratio is
that of the medians. Load: requests of 1 to 4 images by both transports at once, each compared with the session's own
answer. Pictures: JPEG files sent as they are take turns with the same files decoded by the client and sent as a tensor.
Fuzz: the malformed requests of the tests, drawn from a seed. Ends with 1 if an answer is lost, wrong or a 5xx.
"""

import collections
import contextlib
import functools
import http.client
import io
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

from attacks.malformed import Target, grpc_case, http_case, send_grpc, send_http
from attacks.memory import resident_mib
from benchmarks.measuring import Seconds, output_option, spread, take_turns, write_result
from benchmarks.networks import CLASSES, SIZE, exported, flow_student
from models.deploy import with_num_steps
from pipeline.export.samples import write_samples
from pipeline.package.pictures import decode_picture
from pipeline.package.reader import Package
from pipeline.runtimes.base import predict, to_input
from pipeline.runtimes.latency import percentiles, random_pixels
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Classes
from pipeline.tasks.verification import Reference
from workbench.serving_helpers import CLASSIFICATION, CLIENTS, ServerProcess, serving, write_package

STEPS = 4
OUTPUT = "logits"
PICTURES = [(1, 640, 480), (8, 640, 480), (1, 4000, 3000)]
"""Batch, width and height of files that are sent as they are."""
OPTIONS = ["--timeout", "60", "--max-bytes", str(8 * 2**20)]
"""Of the servers; the malformed requests are larger by as much as is allowed."""
POOL = 64
"""Different images that requests are made of."""
TOLERANCE = 1e-4
"""Of a logit, between batches of different sizes; the pool's own answers lie further apart by far."""
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


def make_package(folder: Path) -> Path:
    """Export an untrained network into a package."""
    torch.manual_seed(0)
    folder.mkdir()
    path = folder / "model.onnx"
    session = exported(with_num_steps(flow_student("wrn_16_2"), STEPS).general_form(), path)
    names = [str(i) for i in range(CLASSES)]
    signature = CLASSIFICATION.signature(image_size=SIZE, input_dtype="float32", class_names=names)
    pixels = random_pixels(8, SIZE)
    outputs = predict(session, pixels, len(pixels))
    truth = {"labels": outputs[OUTPUT].argmax(axis=1)}
    write_samples(folder, Reference(CLASSIFICATION, pixels, truth, outputs))
    return write_package(folder, files={"fp32": path.name}, classes=Classes(tuple(names)), signature=signature)


def make_images(package: Package) -> NDArray[np.float32]:
    """Return images (POOL, 3, H, W) of different brightness, whose answers differ."""
    generator = np.random.default_rng(0)
    noise = generator.random((POOL, 3, *package.image_size), np.float32)
    return noise * generator.random((POOL, 3, 1, 1), np.float32)


def caller(
    transport: str, address: str, name: str, *, binary: bool = True, kind: str = "FP32"
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function that asks the server for the logits of images."""
    library = CLIENTS[transport]
    client = library.InferenceServerClient(address)
    options = {} if transport == "grpc" else {"binary_data": binary}

    def ask(images: NDArray[Any]) -> NDArray[Any]:
        entry = library.InferInput("image", images.shape, kind)
        entry.set_data_from_numpy(images, **options)
        outputs = [library.InferRequestedOutput(OUTPUT, **options)]
        answer: NDArray[Any] = client.infer(name, [entry], outputs=outputs).as_numpy(OUTPUT)
        return answer

    return ask


def measure_latency(
    session: OnnxRuntime, servers: dict[int, ServerProcess], name: str, images: NDArray[Any], blocks: int
) -> Any:
    """Return percentiles in milliseconds of each way to an answer; ``servers`` are by their number of workers."""
    ways: dict[str, Callable[[NDArray[Any]], object]] = {"session": session.infer}
    for workers, server in servers.items():
        suffix = f", {workers} worker" + "s" * (workers > 1)
        ways[f"http{suffix}"] = caller("http", server.http, name)
        ways[f"grpc{suffix}"] = caller("grpc", server.grpc, name)
    ways["http json"] = caller("http", server.http, name, binary=False)
    calls = {way: functools.partial(ask, images) for way, ask in ways.items()}
    return compared(take_turns(calls, turns=blocks, repeat=10), lambda _: "session")


def compared(seconds: Seconds, baseline: Callable[[str], str]) -> dict[str, dict[str, float]]:
    """Return percentiles in milliseconds of each way, and the ratio of its median to that of its ``baseline``."""
    points = {way: percentiles(spent.ravel()) for way, spent in seconds.items()}
    return {way: ms | {"ratio": round(ms["p50"] / points[baseline(way)]["p50"], 3)} for way, ms in points.items()}


def make_photo(width: int, height: int, seed: int) -> bytes:
    """Return a JPEG file with as much detail as photos have, about 1.5 bits a pixel."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def measure_pictures(server: ServerProcess, package: Package, size: tuple[int, int], batch: int, blocks: int) -> Any:
    """Return percentiles in milliseconds of ways to the answer on ``batch`` files of ``size`` (width, height)."""
    files = [make_photo(*size, seed) for seed in range(batch)]
    ways: dict[str, Callable[[], Any]] = {}

    def decoded() -> NDArray[Any]:
        read = [decode_picture("", file, package.image_size, resize=package.task.resize).pixels for file in files]
        return to_input(np.stack(read), package.input_dtype)

    for transport in CLIENTS:
        address = getattr(server, transport)
        ask, send = caller(transport, address, package.name), caller(transport, address, package.name, kind="BYTES")
        ways[f"{transport}, decoded by client"] = _asking(ask, decoded)
        ways[f"{transport}, BYTES"] = _asking(send, lambda: np.array(files, np.object_))
    if batch == 1:
        host, _, port = server.http.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port))

        def predict() -> bytes:
            connection.request("POST", "/predict", files[0])
            return connection.getresponse().read()

        ways["http, /predict"] = predict
    seconds = take_turns(ways, turns=blocks, repeat=3)
    return compared(seconds, lambda way: f"{way.partition(',')[0]}, decoded by client")


def sent_files(pictures: dict[str, dict[str, dict[str, float]]], width: int, height: int) -> dict[str, Any]:
    """Return the bytes of a file, and what sending such files takes beside decoding them, over all batches and ways."""
    rows = [row for name, ways in pictures.items() if name.endswith(f" of {width} x {height}") for row in ways.items()]
    sent = [row["ratio"] for way, row in rows if way.endswith(", BYTES")]
    return {"bytes": len(make_photo(width, height, 0))} | spread("ratio", np.array(sent))


def _asking(ask: Callable[[NDArray[Any]], object], make: Callable[[], NDArray[Any]]) -> Callable[[], object]:
    return lambda: ask(make())


def load(
    server: ServerProcess, name: str, images: NDArray[Any], right: NDArray[Any], requests: int, clients: int
) -> Any:
    """Send ``requests`` from ``clients`` threads, half of them by each transport; return what came of them."""
    numbers = iter(range(requests))
    lock, counts = threading.Lock(), collections.Counter[str]()

    def work(index: int) -> None:
        transport = "http" if index % 2 else "grpc"
        ask = caller(transport, server.http if index % 2 else server.grpc, name)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            size = 1 + number % 4
            chosen = np.random.default_rng(number).choice(len(images), size, replace=False)
            outcome = "lost"
            with contextlib.suppress(InferenceServerException, OSError):
                answer = ask(images[chosen])
                same = answer.shape == right[chosen].shape and np.abs(answer - right[chosen]).max() < TOLERANCE
                outcome = "right" if same else "wrong"
            with lock:
                counts.update([outcome, transport])

    started = time.perf_counter()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    lost = requests - counts["right"] - counts["wrong"]
    return dict(counts) | {"lost": lost, "wrong": counts["wrong"], "requests per second": round(requests / seconds, 1)}


def fuzz(server: ServerProcess, target: Target, requests: int, seed: int) -> Any:
    """Send malformed requests; return how often each status came, and the server's memory in MiB before and after."""
    rng, counts = random.Random(seed), collections.Counter[str]()  # noqa: S311
    before = resident_mib(server.process.pid)
    with grpc.insecure_channel(server.grpc) as channel:
        for number in range(requests):
            if number % 2:
                counts[str(send_http(server.http, http_case(rng, target)))] += 1
            else:
                counts[send_grpc(channel, grpc_case(rng, target))] += 1
    bad = sum(count for status, count in counts.items() if not (status.startswith("4") or status in REFUSALS))
    alive = server.ask("/v2/health/ready")[0] == 200
    memory = {"before": round(before), "after": round(resident_mib(server.process.pid))}
    return {"statuses": dict(sorted(counts.items())), "bad": bad, "alive": alive, "mib": memory}


def successes(server: ServerProcess, name: str) -> int:
    """Return how many requests the server counts as answered well."""
    count: int = server.ask(f"/v2/models/{name}/stats")[1]["model_stats"][0]["inference_stats"]["success"]["count"]
    return count


def run(folder: Path, pictures: Sequence[tuple[int, int, int]], config: dict[str, Any]) -> dict[str, Any]:
    package = Package.open(folder)
    session = OnnxRuntime(package.files["fp32"], num_threads=1, spinning=False)
    images = make_images(package)
    right = session.infer(images)[OUTPUT]
    with contextlib.ExitStack() as stack:
        servers = {
            workers: stack.enter_context(serving(folder, "--workers", str(workers), *OPTIONS))
            for workers in sorted({1, config["workers"]})
        }
        server = servers[config["workers"]]
        limits = server.wait_for("ready")["limits"]
        target = Target(package.name, images.shape[1:], limits["max_batch"], limits["max_bytes"])
        latency = {
            str(size): measure_latency(session, servers, package.name, images[:size], config["blocks"])
            for size in (1, 8)
        }
        results: dict[str, Any] = {"latency": latency, "mib at start": round(resident_mib(server.process.pid))}
        results["pictures"] = {
            f"{batch} of {width} x {height}": measure_pictures(
                servers[1], package, (width, height), batch, config["blocks"]
            )
            for batch, width, height in pictures
        }
        results["files"] = {
            f"{width} x {height}": sent_files(results["pictures"], width, height) for _, width, height in pictures
        }
        before = successes(server, package.name)
        results["load"] = load(server, package.name, images, right, config["requests"], config["clients"])
        results["fuzz"] = fuzz(server, target, config["malformed"], config["seed"])
        counted = successes(server, package.name) - before
        results["requests"] = {"answered": config["requests"] - results["load"]["lost"], "counted": counted}
        results["exit code"] = max(abs(each.stop()) for each in servers.values())
    return results


def show(results: dict[str, Any]) -> None:
    click.echo("batch  way                p50 ms   p95 ms   p99 ms   p50 / session")
    for size, ways in results["latency"].items():
        for way, row in ways.items():
            click.echo(f"{size:>5}  {way:16} {_points(row)}")
    for what, ways in results["pictures"].items():
        click.echo(f"pictures: {what}, and against what the client decodes")
        for way, row in ways.items():
            click.echo(f"       {way:24} {_points(row)}")
    load_, fuzz_ = results["load"], results["fuzz"]
    click.echo(f"load: {json.dumps(load_)}")
    click.echo(f"malformed: {json.dumps(fuzz_['statuses'])}")
    click.echo(f"answered otherwise than by a refusal: {fuzz_['bad']}, ready afterwards: {fuzz_['alive']}")
    click.echo(f"resident MiB at start: {results['mib at start']}, around the malformed: {fuzz_['mib']}")
    click.echo(f"requests: {results['requests']}; exit code {results['exit code']}")


def _points(row: dict[str, float]) -> str:
    return f"{row['p50']:8.2f} {row['p95']:8.2f} {row['p99']:8.2f} {row['ratio']:10.2f}"


@click.command()
@click.option("--package", type=click.Path(path_type=Path), help="Folder of a package. [default: an untrained one]")
@click.option("--blocks", default=30, show_default=True, help="Blocks of ten calls of each way, which alternate.")
@click.option("--requests", default=10000, show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--malformed", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Inferences that the server runs at a time.")
@click.option(
    "--picture",
    "pictures",
    type=(int, int, int),
    multiple=True,
    default=PICTURES,
    show_default=True,
    help="Batch, width and height of files that are sent as they are.",
)
@output_option
def main(package: Path | None, pictures: tuple[tuple[int, int, int], ...], output: Path | None, **config: Any) -> None:
    """Print a table; end with 1 if something was lost, wrong, or failed."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(package or make_package(Path(folder) / "package"), pictures, config)
    click.echo(json.dumps(config))
    show(results)
    write_result(output, config=config | {"pictures": pictures}, results=results)
    faults = [results["load"]["lost"], results["load"]["wrong"], results["fuzz"]["bad"], results["exit code"]]
    if any(faults) or not results["fuzz"]["alive"] or results["requests"]["answered"] != results["requests"]["counted"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
