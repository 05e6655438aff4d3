"""Programs of a package that are copied and changed by those who use it: of a server's client, and in C++.

They know this package: the Python client by the lines of its model card, the C++ programs by constants.
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template
from textwrap import fill

from pipeline.core.files import write_text
from pipeline.package.card_example import FITTINGS, PIXELS
from pipeline.package.reader import Package
from pipeline.tasks.base import Task

CLIENTS = "clients"
"""Their folder in the package."""
SOURCES = Path(__file__).with_name("cpp")
PYTHON_CLIENT = "triton_client.py"
ASKS = "`tritonclient` over HTTP or gRPC: sends the tensor, to NVIDIA Triton too, or the image file as it is"
CPP_PROGRAMS = {
    "onnxruntime_client.cpp": "C++17, ONNX Runtime 1.18 or later",
    "tensorrt_client.cpp": "C++17, TensorRT 10.3 to 11: an engine that `build-engine` has built on the GPU itself",
}
PICTURE = "picture.hpp"
ANSWERS = {"labels": "labels.hpp", "boxes": "boxes.hpp"}
"""From what ``pipeline.tasks.base.Task.cpp_answer`` can say to the file that becomes the programs' ``answer.hpp``."""
COVERS = {"central_square": True, "letterbox": False}
"""Whether an image covers the input, by the ways of ``pipeline.tasks.base.Task.resize``."""
WIDTH = 90
"""Of lines of numbers."""
TRUTH = {False: "false", True: "true"}

CONSTANTS = """\
// Written with the package: what its files take and return.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace package {

constexpr int HEIGHT = $height, WIDTH = $width;
constexpr bool COVERS = $covers;  // true: scaled to cover the input, its centre cut out; false: all of it, top left
constexpr int PADDING = $padding;  // value of the pixels beside it
constexpr bool TAKES_BYTES = $takes_bytes;  // true: uint8, pixels as they are; false: float32 in [0, 1]
const char *const INPUT = $input;

struct Output {
    const char *name;
    bool whole_numbers;  // int32, otherwise float32
    std::size_t size;    // values of one image
};

const std::vector<Output> OUTPUTS = {
$outputs
};

const std::vector<std::string> LABELS = {
$labels
};
const std::vector<long> IDS = {$ids};  // of each label in the data, if it has ids
$numbers
}  // namespace package
"""
PYTHON = '''\
"""Ask a server what is on an image: ``serve`` of this package, or NVIDIA Triton.

    pip install numpy pillow "tritonclient[grpc,http]"
    python clients/triton_client.py ../image.jpg [--grpc] [--file] [--url HOST:PORT] [--tls [--ca FILE]]

A server that asks for a token gets that of the variable FMKT_TOKEN.
"""

import argparse
import io
import json
import os
import ssl
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description="Ask a server what is on an image.")
parser.add_argument("image")
parser.add_argument("--grpc", action="store_true", help="speak gRPC, not HTTP")
parser.add_argument("--file", action="store_true", help="send the file as it is; the server decodes it (not Triton)")
parser.add_argument("--url", metavar="HOST:PORT", help="default: localhost:8000, with --grpc localhost:8001")
parser.add_argument("--tls", action="store_true", help="the server has a certificate")
parser.add_argument("--ca", metavar="FILE", type=os.path.abspath, help="PEM of who signed it, if nobody known did")
parser.add_argument("--model", default=$name)
given = parser.parse_args()
if "://" in (given.url or ""):
    parser.error(f"--url: got {given.url}; give host and port alone, such as localhost:8000")
if given.ca and not given.tls:
    parser.error("--ca: needs --tls")
try:
    trusted = ssl.create_default_context(cafile=given.ca)
except OSError as error:
    sys.exit(f"error: --ca {given.ca}: {error}")
try:
    import numpy as np
    from PIL import Image, ImageOps
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

    if given.grpc:
        import tritonclient.grpc as library
    else:
        import tritonclient.http as library
except (ImportError, RuntimeError) as error:  # the latter where tritonclient is there without this transport
    sys.exit(f'error: {error}; pip install numpy pillow "tritonclient[grpc,http]"')

OUTPUTS = $output_names


class Session:
    """The server's model, asked as an ``onnxruntime.InferenceSession`` is."""

    def __init__(self):
        options = {}
        if given.tls and given.grpc:
            options = {"ssl": True, "root_certificates": given.ca}
        elif given.tls:
            options = {"ssl": True, "ssl_context_factory": lambda: trusted}
        address = given.url or ("localhost:8001" if given.grpc else "localhost:8000")
        token = os.environ.get("FMKT_TOKEN")
        self.headers = {"authorization": f"Bearer {token}"} if token else None
        self.client = library.InferenceServerClient(address, **options)

    def run(self, names, inputs):
        """Return the outputs ``names`` (None: all) for ``inputs``, a mapping from the one input's name to its array."""
        ((name, values),) = inputs.items()
        tensor = library.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        outputs = [library.InferRequestedOutput(output) for output in names or OUTPUTS]
        try:
            answer = self.client.infer(given.model, [tensor], outputs=outputs, headers=self.headers)
        except (InferenceServerException, OSError) as error:
            sys.exit(f"error: {error}")
        return [answer.as_numpy(output.name()) for output in outputs]


try:
    data = Path(given.image).read_bytes()
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    sys.exit(f"error: {given.image}: cannot be read as an image ({error})")
os.chdir(Path(__file__).resolve().parents[1])  # the package
preprocessing = json.load(open("preprocessing.json"))
labels = json.load(open("labels.json"))["labels"]
height, width = preprocessing["image_size"]

$fitting
$pixels
if given.file:
    pixels = np.array([data], dtype=object)  # (1,), for Triton's protocol BYTES
session = Session()
$usage
'''


def write_clients(package: Package) -> None:
    """Write the programs into the folder ``clients`` of ``package``; those in C++ where the task has them."""
    folder = package.folder / CLIENTS
    folder.mkdir()
    write_text(folder / PYTHON_CLIENT, python_client(package))
    answer = package.task.cpp_answer
    if answer is None:
        return
    for name in (*CPP_PROGRAMS, PICTURE):
        shutil.copyfile(SOURCES / name, folder / name)
    shutil.copyfile(SOURCES / ANSWERS[answer], folder / "answer.hpp")
    write_text(folder / "package.hpp", cpp_constants(package))


def client_rows(task: Task) -> str:
    """Return a row of a table of Markdown for each program that a package of ``task`` has."""
    programs = {PYTHON_CLIENT: ASKS} | ({} if task.cpp_answer is None else CPP_PROGRAMS)
    return "\n".join(f"| [{name}]({CLIENTS}/{name}) | {what} |" for name, what in programs.items())


def python_client(package: Package) -> str:
    """Return the program that asks a server: from the image on it does what the model card's example does."""
    return Template(PYTHON).substitute(
        name=repr(package.name),
        output_names=repr(package.signature.output_names),
        fitting=FITTINGS[package.task.resize],
        pixels=PIXELS[package.input_dtype],
        usage=package.task.card_usage(),
    )


def cpp_constants(package: Package) -> str:
    """Return what the C++ programs must know of ``package``, as a header."""
    task, taken = package.task, package.signature.input
    height, width = package.image_size
    outputs = [(spec.name, TRUTH[spec.dtype == "int32"], math.prod(spec.shape)) for spec in package.signature.outputs]
    return Template(CONSTANTS).substitute(
        height=height,
        width=width,
        covers=TRUTH[COVERS[task.resize]],
        padding=task.preprocessing().get("padding", 0),
        takes_bytes=TRUTH[taken.dtype == "uint8"],
        input=_literal(taken.name),
        outputs="\n".join(f"    {{{_literal(name)}, {whole}, {size}}}," for name, whole, size in outputs),
        labels="\n".join(f"    {_literal(name)}," for name in package.class_names),
        ids=fill(", ".join(map(str, package.classes.ids or ())), WIDTH),
        numbers="".join(f"{line}\n" for line in _numbers(package)),
    )


def _numbers(package: Package) -> Iterator[str]:
    """Yield a constant for each number by which detections are chosen."""
    for name, value in package.task.output_facts().get("detections", {}).items():
        if isinstance(value, int):
            yield f"constexpr std::size_t {name.upper()} = {value};"
        elif isinstance(value, float):
            yield f"constexpr float {name.upper()} = {value!r}f;"


def _literal(text: str) -> str:
    """Return ``text`` as a literal of C++: its bytes in UTF-8, of which those that are not plain have their number."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
