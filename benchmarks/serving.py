"""What the server costs beside the network itself, and whether it loses or mixes up anything under load.

    python benchmarks/serving.py                       # an untrained wrn_16_2 with four steps of the conv meta-encoder
    python benchmarks/serving.py --package artifacts/package --output results.json

The server is the process that ``python -m stages serve`` starts, on loopback, one thread a session. Latency: blocks of
calls of a session in this process and of tritonclient over HTTP (binary and JSON) and gRPC take turns; the ratio is
that of the medians. Load: requests of 1 to 4 images by both transports at once, each compared with the session's own
answer. Pictures: JPEG files sent as they are take turns with the same files decoded by the client and sent as a tensor.
Fuzz: the malformed requests of the tests, drawn from a seed. Ends with 1 if an answer is lost, wrong or a 5xx.
"""

import collections
import contextlib
import http.client
import io
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tritonclient.utils import InferenceServerException

sys.path.insert(0, str(Path(__file__).parent.parent))

from attacks.malformed import Target, grpc_case, http_case, send_grpc, send_http
from models.deploy import with_num_steps
from models.students import build_flow_student
from pipeline.core.signature import image_input
from pipeline.export.onnx.exporter import export_image_network
from pipeline.export.samples import write_samples
from pipeline.package.pictures import decode_picture
from pipeline.package.reader import Package
from pipeline.runtimes.base import predict, to_input
from pipeline.runtimes.latency import random_pixels
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Classes
from pipeline.tasks.verification import Reference
from tests.serving_helpers import CLASSIFICATION, CLIENTS, ServerProcess, serving, write_package

CLASSES, SIZE, STEPS = 100, 32, 4
MEAN, STD = [0.507, 0.487, 0.441], [0.267, 0.256, 0.276]
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
    student = build_flow_student(
        backbone="wrn_16_2",
        num_classes=CLASSES,
        mean=MEAN,
        std=STD,
        schedule="rectified",
        meta_encoder="conv",
        time_scale=1.0,
    )
    folder.mkdir()
    path = folder / "model.onnx"
    network = with_num_steps(student, STEPS).general_form()
    export_image_network(network, path, image_input((SIZE, SIZE), "float32"), [OUTPUT], opset=20, metadata={})
    names = [str(i) for i in range(CLASSES)]
    signature = CLASSIFICATION.signature(image_size=(SIZE, SIZE), input_dtype="float32", class_names=names)
    pixels = random_pixels(8, (SIZE, SIZE))
    outputs = predict(OnnxRuntime(path), pixels, len(pixels))
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
    ways = {"session": session.infer}
    for workers, server in servers.items():
        suffix = f", {workers} worker" + "s" * (workers > 1)
        ways[f"http{suffix}"] = caller("http", server.http, name)
        ways[f"grpc{suffix}"] = caller("grpc", server.grpc, name)
    ways["http json"] = caller("http", server.http, name, binary=False)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for block in range(blocks + 1):
        for way, ask in ways.items():
            for _ in range(10):
                started = time.perf_counter()
                ask(images)
                if block:  # the first one warms up
                    times[way].append((time.perf_counter() - started) * 1e3)
    points = {way: np.percentile(spent, [50, 95, 99]).round(3).tolist() for way, spent in times.items()}
    base = points["session"][0]
    return {way: {"ms": ms, "ratio": round(ms[0] / base, 3)} for way, ms in points.items()}


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
        ways[f"{transport}, decoded by client"] = lambda ask=ask: ask(decoded())  # type: ignore[misc]
        ways[f"{transport}, BYTES"] = lambda send=send: send(np.array(files, np.object_))  # type: ignore[misc]
    if batch == 1:
        host, _, port = server.http.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port))

        def predict() -> bytes:
            connection.request("POST", "/predict", files[0])
            return connection.getresponse().read()

        ways["http, /predict"] = predict
    times: dict[str, list[float]] = {way: [] for way in ways}
    for block in range(blocks + 1):
        for way, run_once in ways.items():
            for _ in range(3):
                started = time.perf_counter()
                run_once()
                if block:  # the first one warms up
                    times[way].append((time.perf_counter() - started) * 1e3)
    points = {way: np.percentile(spent, [50, 95, 99]).round(3).tolist() for way, spent in times.items()}
    return {
        way: {"ms": ms, "ratio": round(ms[0] / points[f"{way.partition(',')[0]}, decoded by client"][0], 3)}
        for way, ms in points.items()
    }


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
    before = resident(server)
    with grpc.insecure_channel(server.grpc) as channel:
        for number in range(requests):
            if number % 2:
                counts[str(send_http(server.http, http_case(rng, target)))] += 1
            else:
                counts[send_grpc(channel, grpc_case(rng, target))] += 1
    bad = sum(count for status, count in counts.items() if not (status.startswith("4") or status in REFUSALS))
    alive = server.ask("/v2/health/ready")[0] == 200
    return {"statuses": dict(sorted(counts.items())), "bad": bad, "alive": alive, "mib": [before, resident(server)]}


def resident(server: ServerProcess) -> int:
    line = next(
        line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    )
    return int(line.split()[1]) // 1024


def run(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
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
            size: measure_latency(session, servers, package.name, images[:size], config["blocks"]) for size in (1, 8)
        }
        results = {"latency": latency, "memory at start": resident(server)}
        results["pictures"] = {
            f"{batch} of {width} x {height}": measure_pictures(
                servers[1], package, (width, height), batch, config["blocks"]
            )
            for batch, width, height in PICTURES
        }
        results["load"] = load(server, package.name, images, right, config["requests"], config["clients"])
        results["fuzz"] = fuzz(server, target, config["malformed"], config["seed"])
        counted = server.ask(f"/v2/models/{package.name}/stats")[1]["model_stats"][0]["inference_stats"]["success"]
        expected = sum(30 * (config["blocks"] + 1) for _ in latency) + config["requests"] - results["load"]["lost"]
        results["counted"] = [counted["count"], expected]
        results["exit code"] = max(abs(each.stop()) for each in servers.values())
    return results


def show(results: dict[str, Any]) -> None:
    click.echo("batch  way                p50 ms   p95 ms   p99 ms   p50 / session")
    for size, ways in results["latency"].items():
        for way, row in ways.items():
            p50, p95, p99 = row["ms"]
            click.echo(f"{size:5}  {way:16} {p50:8.2f} {p95:8.2f} {p99:8.2f} {row['ratio']:10.2f}")
    for what, ways in results["pictures"].items():
        click.echo(f"pictures: {what}, and against what the client decodes")
        for way, row in ways.items():
            p50, p95, p99 = row["ms"]
            click.echo(f"       {way:24} {p50:8.2f} {p95:8.2f} {p99:8.2f} {row['ratio']:10.2f}")
    load_, fuzz_ = results["load"], results["fuzz"]
    click.echo(f"load: {json.dumps(load_)}")
    click.echo(f"malformed: {json.dumps(fuzz_['statuses'])}")
    click.echo(f"answered otherwise than by a refusal: {fuzz_['bad']}, ready afterwards: {fuzz_['alive']}")
    click.echo(f"resident MiB at start, before, after the malformed: {results['memory at start']}, {fuzz_['mib']}")
    click.echo(f"requests counted by the server, sent: {results['counted']}; exit code {results['exit code']}")


@click.command()
@click.option("--package", type=click.Path(path_type=Path), help="Folder of a package. [default: an untrained one]")
@click.option("--blocks", default=30, show_default=True, help="Blocks of ten calls of each way, which alternate.")
@click.option("--requests", default=10000, show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--malformed", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Inferences that the server runs at a time.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file to write besides.")
def main(package: Path | None, output: Path | None, **config: Any) -> None:
    """Print a table; end with 1 if something was lost, wrong, or failed."""
    with tempfile.TemporaryDirectory() as folder:
        results = run(package or make_package(Path(folder) / "package"), config)
    click.echo(json.dumps(config))
    show(results)
    if output is not None:
        output.write_text(json.dumps({"config": config, "cpus": os.cpu_count(), "results": results}, indent=2))
    faults = [results["load"]["lost"], results["load"]["wrong"], results["fuzz"]["bad"], results["exit code"]]
    if any(faults) or not results["fuzz"]["alive"] or results["counted"][0] != results["counted"][1]:
        sys.exit(1)


if __name__ == "__main__":
    main()
