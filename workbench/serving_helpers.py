"""A small package whose right answers are known, and server processes over it."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.files import write_json
from pipeline.core.signature import Signature
from pipeline.export.precisions import PRECISIONS
from pipeline.export.samples import write_samples
from pipeline.export.tensorrt.plan import EngineSettings
from pipeline.package.writer import class_table, preprocessing, write_sums
from pipeline.preflight.code import PROJECT
from pipeline.runtimes.engine_file import describe_signature
from pipeline.tasks.base import Classes, Task
from pipeline.tasks.gate import Gate
from pipeline.tasks.table import get_task
from pipeline.tasks.verification import Reference

CLIENTS: dict[str, Any] = {"http": tritonclient.http, "grpc": tritonclient.grpc}
NAME = "fmkt-student"
SIZE, CLASSES = 8, 10
LABELS = [f"class {i}" for i in range(CLASSES)]
COMMAND = "from stages.commands.serve import serve; serve()"
CLASSIFICATION = get_task("classification")


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return matrix (3 * 8 * 8, 10) and bias (10,) of the model."""
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(3 * SIZE * SIZE, CLASSES)).astype(np.float32)
    return matrix, generator.normal(size=CLASSES).astype(np.float32)


def right_logits(images: NDArray[Any]) -> NDArray[np.float32]:
    """Return what the model of ``make_package`` makes of ``images``, computed in float64."""
    matrix, bias = weights()
    scaled = images / 255 if images.dtype == np.uint8 else images.astype(np.float64)
    return np.asarray(scaled.reshape(len(images), -1) @ matrix.astype(np.float64) + bias, np.float32)


def random_images(batch: int, seed: int = 0, dtype: str = "float32") -> NDArray[Any]:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (batch, 3, SIZE, SIZE)).astype(np.uint8)
    return pixels if dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)


def make_model(path: Path, *, dtype: str = "float32", delay: int = 0) -> None:
    """Write a linear classifier; ``delay`` adds so many products of 256 x 256 matrices that change nothing."""
    kind = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}[dtype]
    matrix, bias = weights()
    constants: dict[str, Any] = {"matrix": matrix, "bias": bias, "flat": np.array([0, -1], np.int64)}
    nodes = [helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)]
    if dtype == "uint8":
        constants["scale"] = np.float32(255)
        nodes.append(helper.make_node("Div", ["pixels", "scale"], ["scaled"]))
    else:
        nodes.append(helper.make_node("Identity", ["pixels"], ["scaled"]))
    nodes.append(helper.make_node("Reshape", ["scaled", "flat"], ["rows"]))
    nodes.append(helper.make_node("Gemm", ["rows", "matrix", "bias"], ["slow" if delay else "logits"]))
    if delay:
        constants |= {"delay": np.array(delay, np.int64), "go": np.array(True), "zero": np.float32(0)}  # noqa: FBT003
        constants |= {"eye": np.eye(256, dtype=np.float32)}
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["state", "eye"], ["next"]),
                helper.make_node("Identity", ["going"], ["goes"]),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("going", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
        )
        nodes += [
            helper.make_node("ReduceMax", ["slow"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["eye", "largest"], ["start"]),  # depends on the input, so nothing is folded away
            helper.make_node("Loop", ["delay", "go", "start"], ["end"], body=body),
            helper.make_node("ReduceMax", ["end"], ["last"], keepdims=0),
            helper.make_node("Mul", ["last", "zero"], ["nothing"]),
            helper.make_node("Add", ["slow", "nothing"], ["logits"]),
        ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", kind, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def make_package(folder: Path, *, dtype: str = "float32", delay: int = 0, more: tuple[str, ...] = ()) -> Path:
    """Write a package with a file for fp32 and for each precision in ``more``."""
    folder.mkdir(parents=True)
    files = {name: PRECISIONS[name].file_name for name in ("fp32", *more)}
    for name in files.values():
        make_model(folder / name, dtype=dtype, delay=delay)
    signature = CLASSIFICATION.signature(image_size=(SIZE, SIZE), input_dtype=dtype, class_names=LABELS)
    write_package(folder, files=files, classes=Classes(tuple(LABELS)), signature=signature)
    add_samples(folder)
    return folder


def write_package(
    folder: Path,
    *,
    files: dict[str, str],
    classes: Classes,
    signature: Signature,
    task: Task = CLASSIFICATION,
    **about: Any,
) -> Path:
    """Add to the ONNX ``files`` (precision to name) in ``folder`` what makes a package of them.

    ``about`` goes into the manifest.
    """
    described = {
        name: {"precision": precision, "sha256": digest(folder / name), "bytes": (folder / name).stat().st_size}
        for precision, name in files.items()
    }
    gate = asdict(Gate(max_difference=1e-3, min_agreement=1.0, max_drop=0.0))
    taken = signature.input
    manifest = {"name": NAME, "input": taken.dtype, "image_size": taken.shape[1:], "num_steps": 4, "opset": 20}
    manifest |= {"files": described, "gates": dict.fromkeys(files, gate), **about}
    manifest |= {"task": task.name, "signature": describe_signature(signature)}
    data = {"classes": classes.names, "category_ids": classes.ids, "resize": "central_square"}
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "labels.json", class_table(data))
    statistics = {"mean": "[0.5, 0.5, 0.5]", "std": "[0.25, 0.25, 0.25]"}
    write_json(folder / "preprocessing.json", preprocessing(task, signature, data, statistics))
    write_json(folder / "engine.json", asdict(EngineSettings(max_batch=32)))
    write_sums(folder)
    return folder


def add_samples(folder: Path, error: float = 0.0) -> None:
    """Add sample images to a package, one of their logits wrong by ``error``."""
    images = random_images(6, dtype="uint8")
    logits = right_logits(images)
    truth = {"labels": logits.argmax(axis=1)}
    logits[3, 4] += error
    write_samples(folder, Reference(CLASSIFICATION, images, truth, {"logits": logits}))
    write_sums(folder)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class ServerProcess:
    """A running server, its addresses and its log."""

    def __init__(self, package: Path, *options: str, code: str = COMMAND) -> None:
        command = [sys.executable, "-c", code, "--package", str(package), "--http-port", "0", "--grpc-port", "0"]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=PROJECT,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.http = self.grpc = ""

    def wait_until_ready(self, places: tuple[str, str] | None = None) -> None:
        """Wait until it serves; ``places`` are its addresses where its log is no JSON that tells them."""
        if places is None:
            ready = self.wait_for("ready")
            places = ready["http"], ready["grpc"]
        else:
            self._wait_for_text(" ready ")
        self.http, self.grpc = places

    def _wait_for_text(self, text: str) -> None:
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Return the logged events called ``name`` that have ``fields``."""
        entries = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == name and fields.items() <= entry.items()]

    def wait_for(self, name: str, **fields: object) -> dict[str, Any]:
        """Return the first event called ``name`` that has ``fields``, once it is logged."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if found := self.events(name, **fields):
                return found[0]
            assert self.process.poll() is None or self.reader.is_alive(), self.lines
            time.sleep(0.01)
        raise AssertionError(f"no {name!r} with {fields}: {self.lines}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell the process to end and return its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.reader.join(5)
        return code

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, Any]:
        """Return status and content of an HTTP answer; JSON is parsed where it is some."""
        request = urllib.request.Request(f"http://{self.http}{path}", body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
                return response.status, _content(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _content(error.read())


def run_python(code: str, *arguments: str) -> tuple[int, str]:
    """Return exit code and standard error of a process that runs ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stderr


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


@contextlib.contextmanager
def serving(package: Path, *options: str, code: str = COMMAND, **places: Any) -> Iterator[ServerProcess]:
    """Yield a server over ``package``, started by ``code``, that is killed at the end if it still runs."""
    server = ServerProcess(package, *options, code=code)
    try:
        server.wait_until_ready(**places)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(10)
