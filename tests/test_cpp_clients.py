"""The C++ programs of a package: compiled as their first lines say, run on PPM files, compared with ``fmkt predict``.

Everywhere over headers of the tests' own, which have as much of ONNX Runtime and TensorRT as the programs use; over the
real ones where these are found (ONNXRUNTIME_INCLUDE, TENSORRT_INCLUDE; the library of ONNX Runtime is that of its
Python package).
"""

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from pipeline.package.clients import write_clients
from pipeline.package.pictures import ImageFile, Picture, read_picture
from pipeline.package.reader import Package
from pipeline.runtimes.base import predict
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Classes
from stages.__main__ import main
from tests import detection_package
from tests.helpers import ROOT
from workbench import serving_helpers

COMPILER = shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no g++")
STUBS = ROOT / "tests/cpp"
TYPES = {"float32": 0, "int32": 3, "uint8": 5}
"""TensorRT's numbers."""
SITE = Path(sysconfig.get_paths()["platlib"])
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SIZES = [(8, 8), (96, 64), (300, 100), (31, 97), (640, 479), (5, 3), (1, 40), (96, 63), (7, 64)]
"""Width and height."""
PROBE = """\
#include "picture.hpp"
int main(int, char **argv) {
    const Input input = prepare(read_ppm(argv[1]));
    std::ofstream file(argv[2], std::ios::binary);
    file.write(reinterpret_cast<const char *>(input.bytes.data()), std::streamsize(input.bytes.size()));
}
"""
PRINTED = """\
#include "package.hpp"
#include <cstdio>
int main() {
    for (const auto &name : package::LABELS) std::printf("%s\\n", name.c_str());
}
"""


def make(kind: str, folder: Path) -> Package:
    """Write a package with its programs."""
    if kind == "boxes":
        detection_package.make_package(folder)
    elif kind == "all boxes":
        detection_package.make_package_without_nms(folder)
    else:
        serving_helpers.make_package(folder, dtype=kind)
    package = Package.open(folder)
    write_clients(package)
    return package


@pytest.fixture(scope="module", params=["float32", "uint8", "boxes", "all boxes"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return make(request.param, tmp_path_factory.mktemp("package") / "package")


def compiled(source: Path, *options: str, include: Path = STUBS) -> Path:
    """Return the program made of ``source``, which must give no warning."""
    program = source.parent / f"{source.stem}-{include.name}"
    words = [str(COMPILER), "-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", str(include), str(source)]
    done = subprocess.run([*words, "-o", str(program), *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as its users do, whose environment does not say that ONNX Runtime shall send nothing."""
    outside = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = list(map(str, words))
    variables = outside | options.pop("more", {})
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, **options)


def picture(folder: Path, size: tuple[int, int]) -> Path:
    """Write a PPM file of random pixels, bright enough for detections."""
    pixels = np.random.default_rng(size[0]).integers(90, 200, (size[1], size[0], 3), dtype=np.uint8)
    path = folder / f"{size[0]}x{size[1]}.ppm"
    Image.fromarray(pixels).save(path)
    return path


def predicted(package: Package, path: Path) -> list[tuple[str, ...]]:
    """Return the lines of ``fmkt predict`` as those of the programs."""
    done = CliRunner().invoke(main, ["predict", "--package", str(package.folder), "--json", str(path)])
    found: dict[str, Any] = json.loads(done.stdout)
    if "labels" in found:
        return [(label["label"], f"{label['probability']:.6f}") for label in found["labels"]]
    ids = {name: number for number, name in enumerate(package.class_names)}
    return [
        (
            thing["class"],
            str(ids[thing["class"]] if thing["category_id"] is None else thing["category_id"]),
            *(f"{value}" for value in (thing["score"], *thing["box"])),
        )
        for thing in found["detections"]
    ]


def require_same(printed: str, expected: list[tuple[str, ...]], tolerance: float = 2e-5) -> None:
    lines = [tuple(line.split("\t")) for line in printed.splitlines()]
    assert [len(line) for line in lines] == [len(line) for line in expected]
    for line, wanted in zip(lines, expected, strict=True):
        names = 2 if len(wanted) > 2 else 1
        assert line[:names] == wanted[:names]
        np.testing.assert_allclose([float(x) for x in line[names:]], [float(x) for x in wanted[names:]], atol=0.011)
        assert float(line[names]) == pytest.approx(float(wanted[names]), abs=tolerance)


def answers(package: Package, path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Return the input that the image becomes, and the outputs for it."""
    runtime = OnnxRuntime(package.files["fp32"], provider="cpu", num_threads=1)
    read = read_picture(ImageFile(path.name, path), package.image_size, resize=package.task.resize)
    assert isinstance(read, Picture)
    return read.pixels, dict(predict(runtime, read.pixels[None], 1))


def as_input(package: Package, pixels: NDArray[Any]) -> bytes:
    """Return the bytes of the tensor of ``pixels``."""
    taken = pixels if package.input_dtype == "uint8" else pixels.astype(np.float32) / np.float32(255)
    return bytes(np.ascontiguousarray(taken).tobytes())


@pytest.mark.parametrize("kind", ["float32", "uint8", "boxes"])
def test_an_image_becomes_the_same_input(kind: str, tmp_path: Path) -> None:
    package = make(kind, tmp_path / "package")
    source = package.folder / "clients/probe.cpp"
    source.write_text(PROBE)
    program = compiled(source)
    for size in SIZES:
        path = picture(tmp_path, size)
        subprocess.run([program, path, tmp_path / "input"], check=True)
        found = np.fromfile(tmp_path / "input", package.input_dtype).reshape(3, *package.image_size)
        wanted = np.frombuffer(as_input(package, answers(package, path)[0]), package.input_dtype).reshape(found.shape)
        if size[1] <= size[0]:
            np.testing.assert_array_equal(found, wanted, err_msg=str(size))
        else:  # from version 13 on Pillow may resize the height of tall images first, and rounds between the two
            steps = 1 if package.input_dtype == "uint8" else 255
            np.testing.assert_allclose(found * float(steps), wanted * float(steps), atol=1.01, err_msg=str(size))


def test_the_client_of_onnx_runtime_says_what_predict_says(package: Package, tmp_path: Path) -> None:
    program = compiled(package.folder / "clients/onnxruntime_client.cpp")
    path = picture(tmp_path, (300, 100))
    pixels, outputs = answers(package, path)
    model = tmp_path / "model"
    head = "".join(f"{name} {array.nbytes}\n" for name, array in outputs.items())
    model.write_bytes(head.encode() + b"\n" + b"".join(array.tobytes() for array in outputs.values()))
    done = run(program, model, path)
    assert (done.returncode, done.stderr) == (0, "")
    require_same(done.stdout, predicted(package, path))
    assert (tmp_path / "model.input").read_bytes() == as_input(package, pixels)


@pytest.mark.slow
def test_the_client_of_tensorrt_says_what_predict_says(package: Package, tmp_path: Path) -> None:
    program = compiled(package.folder / "clients/tensorrt_client.cpp", *SANITIZERS)
    path = picture(tmp_path, (300, 100))
    pixels, outputs = answers(package, path)
    plan = tmp_path / "model.plan"
    tensors = {package.signature.input.name: np.frombuffer(as_input(package, pixels), package.input_dtype), **outputs}
    head = "".join(f"{name} {TYPES[array.dtype.name]} {array.nbytes}\n" for name, array in tensors.items())
    plan.write_bytes(head.encode() + b"\n" + b"".join(array.tobytes() for array in outputs.values()))
    done = subprocess.run([program, plan, path], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    require_same(done.stdout, predicted(package, path))
    assert (tmp_path / "engine.input").read_bytes() == as_input(package, pixels)


@pytest.mark.slow
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    package = make("float32", tmp_path / "package")
    onnxruntime = compiled(package.folder / "clients/onnxruntime_client.cpp")
    tensorrt = compiled(package.folder / "clients/tensorrt_client.cpp")
    good, short, other = picture(tmp_path, (10, 10)), tmp_path / "short.ppm", tmp_path / "image.png"
    short.write_bytes(good.read_bytes()[:-1])
    Image.new("RGB", (3, 3)).save(other)
    deep, plan = tmp_path / "deep.ppm", tmp_path / "foreign.plan"
    deep.write_bytes(b"P6 # a remark\n3 3 65535\n" + bytes(54))
    plan.write_text("no engine\n")
    half = tmp_path / "half.plan"
    half.write_text("image 1 384\nlogits 0 40\n\n")
    cases = [
        ((onnxruntime,), "usage: "),
        ((onnxruntime, "model.onnx", tmp_path / "none.ppm"), "none.ppm: cannot be read"),
        ((onnxruntime, "model.onnx", short), "short.ppm: ends before its last pixel"),
        ((onnxruntime, "model.onnx", other), "image.png: not a binary PPM file"),
        ((onnxruntime, "model.onnx", deep), "deep.ppm: needed are 8 bits a channel"),
        ((onnxruntime, tmp_path / "none.onnx", good), "doesn't exist"),
        ((tensorrt, tmp_path / "none.plan", good), "none.plan: cannot be read"),
        ((tensorrt, plan, good), "magicTag does not match\nerror: TensorRT made no engine of this file"),
        ((tensorrt, half, good), "TensorRT refused the type that this package has of image"),
    ]
    for words, expected in cases:
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 2, words
        assert expected in done.stderr, words


def test_labels_of_any_writing_are_printed_as_they_are(tmp_path: Path) -> None:
    names = ("Zaunkönig", 'a "wren"', "back\\slash", "鷦鷯 2", "???/", *(f"class {i}" for i in range(5)))
    folder = serving_helpers.make_package(tmp_path / "package")
    labels = json.loads((folder / "labels.json").read_text())
    (folder / "labels.json").write_text(json.dumps({**labels, "labels": names}))
    serving_helpers.write_sums(folder)
    package = Package.open(folder)
    assert package.classes == Classes(names)
    write_clients(package)
    source = folder / "clients/probe.cpp"
    source.write_text(PRINTED)
    done = subprocess.run([compiled(source)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(names)


def include_of(variable: str, *standard: str, header: str) -> Path:
    """Return the folder of ``header``; skips the test where there is none."""
    places = [Path(place) for place in (os.environ.get(variable, ""), *standard) if place]
    for place in places:
        if (place / header).is_file():
            return place
    pytest.skip(f"no {header} in {', '.join(map(str, places))}; {variable} can name its folder")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ONNX Runtime's library, which its Python package has under its full name alone."""
    found = sorted((SITE / "onnxruntime/capi").glob("libonnxruntime.so.*"))
    if not found:
        pytest.skip("the Python package of ONNX Runtime has no libonnxruntime.so")
    folder = tmp_path_factory.mktemp("lib")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found[-1])
    return folder


def test_the_client_runs_over_onnx_runtime_itself(package: Package, library: Path, tmp_path: Path) -> None:
    include = include_of(
        "ONNXRUNTIME_INCLUDE", "/usr/include/onnxruntime", "/usr/local/include", header="onnxruntime_cxx_api.h"
    )
    source = package.folder / "clients/onnxruntime_client.cpp"
    program = compiled(source, f"-L{library}", "-lonnxruntime", f"-Wl,-rpath,{library}", include=include)
    for size in SIZES:
        path = picture(tmp_path, size)
        done = run(program, package.files["fp32"], path, more={"HOME": str(tmp_path / "home")})
        assert done.returncode == 0, done.stderr
        require_same(done.stdout, predicted(package, path), tolerance=2e-5 if size[1] <= size[0] else 5e-3)
    assert not (tmp_path / "home").exists(), "nothing is kept, such as what ONNX Runtime would send"


def test_the_client_compiles_against_tensorrt_itself(package: Package) -> None:
    include = include_of("TENSORRT_INCLUDE", "/usr/include/x86_64-linux-gnu", "/usr/include", header="NvInfer.h")
    cuda = include_of("CUDA_INCLUDE", str(SITE / "nvidia/cu13/include"), "/usr/local/cuda/include",
                      header="crt/host_defines.h")  # fmt: skip
    compiled(package.folder / "clients/tensorrt_client.cpp", "-c", "-isystem", str(cuda), include=include)
