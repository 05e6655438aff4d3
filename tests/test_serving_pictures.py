"""Image files over the wire: what ``fmkt predict`` says of them, and the tensors that they stand for."""

import base64
import io
import json
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from pipeline.core.files import Json
from pipeline.package.pictures import decode_picture
from pipeline.serving.pictures import read_files
from pipeline.serving.refusal import RefusalError
from pipeline.serving.tensors import InputTensor
from stages.__main__ import main
from tests import detection_package
from workbench.serving_helpers import CLIENTS, NAME, SIZE, ServerProcess, make_package, right_logits, serving

INFER = f"/v2/models/{NAME}/infer"
SIDEWAYS = 6
"""The orientation of a camera that was held upright."""


def picture(width: int, height: int, *, seed: int = 0, kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    """Return the bytes of an image file of soft random colours."""
    noise = np.random.default_rng(seed).integers(120, 256, (4, 4, 3)).astype(np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(width: int, height: int) -> bytes:
    """Return a JPEG file whose camera was held sideways."""
    note = Image.Exif()
    note[0x0112] = SIDEWAYS
    return picture(width, height, kind="JPEG", exif=note)


PICTURES = {
    "png": picture(30, 20),
    "jpeg": picture(40, 60, kind="JPEG"),
    "turned": turned(40, 20),
    "grey": picture(9, 9, mode="L"),
    "palette": picture(20, 30, mode="P"),
    "cmyk": picture(16, 16, kind="TIFF", mode="CMYK"),
    "webp": picture(31, 17, kind="WEBP"),
    "large": picture(2400, 1600, kind="JPEG"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("served") / "package", more=("fp16",))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    limits = ["--max-batch", "4", "--max-picture-bytes", "400000", "--max-megapixels", "8"]
    with serving(folder, "--precision", "fp32", "--precision", "fp16", *limits) as running:
        yield running


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    package = detection_package.make_package(tmp_path_factory.mktemp("boxes") / "package")
    with serving(package) as running:
        yield running, package


@pytest.fixture(params=["http", "grpc"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def infer(server: ServerProcess, transport: str, files: list[bytes], *, wide: bool = False) -> Any:
    library = CLIENTS[transport]
    array = np.array(files, np.object_).reshape((-1, 1) if wide else -1)
    tensor = library.InferInput("image", array.shape, "BYTES")
    tensor.set_data_from_numpy(array)
    with library.InferenceServerClient(getattr(server, transport)) as client:
        return client.infer(NAME, [tensor])


def said_by_command(package: Path, file: bytes, folder: Path, *options: str) -> Json:
    path = folder / "picture"
    path.write_bytes(file)
    result = CliRunner().invoke(main, ["predict", "--package", str(package), "--json", *options, str(path)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    del found["image"]
    return dict(found)


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_answered_as_the_command_does(
    server: ServerProcess, folder: Path, kind: str, tmp_path: Path
) -> None:
    assert server.ask("/predict", PICTURES[kind]) == (200, said_by_command(folder, PICTURES[kind], tmp_path))


@pytest.mark.parametrize("path", [f"/predict/{NAME}", f"/predict/{NAME}-fp16"])
def test_each_model_is_asked_by_its_name(server: ServerProcess, path: str) -> None:
    status, found = server.ask(path, PICTURES["png"], {"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, found) == server.ask("/predict", PICTURES["png"], {"Content-Type": "image/png"})


def test_as_many_labels_as_asked_for(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    for top in ("1", "7", "400"):
        found = server.ask(f"/predict?top={top}", PICTURES["jpeg"])
        assert found == (200, said_by_command(folder, PICTURES["jpeg"], tmp_path, "--top", top))


@pytest.mark.parametrize("kind", ["png", "turned", "large"])
@pytest.mark.parametrize(
    "question", [{}, {"top": "1"}, {"min_score": "0.45"}, {"top": "2", "min_score": "0.1"}], ids=str
)
def test_boxes_are_in_pixels_of_the_picture(
    boxes: tuple[ServerProcess, Path], kind: str, question: dict[str, str], tmp_path: Path
) -> None:
    server, package = boxes
    options = [word for name, text in question.items() for word in ("--" + name.replace("_", "-"), text)]
    query = "&".join(f"{name}={text}" for name, text in question.items())
    status, found = server.ask(f"/predict?{query}", PICTURES[kind])
    assert (status, found) == (200, said_by_command(package, PICTURES[kind], tmp_path, *options))
    assert found["detections"]
    if kind == "turned":
        assert (found["width"], found["height"]) == (20, 40)


@pytest.mark.parametrize("wide", [True, False])
def test_bytes_stand_for_the_tensor(server: ServerProcess, transport: str, wide: bool) -> None:
    files = [PICTURES[kind] for kind in ("png", "turned", "large")]
    pixels = [decode_picture("", file, (SIZE, SIZE), resize="central_square").pixels for file in files]
    right = right_logits(np.stack(pixels))
    found = infer(server, transport, files, wide=wide).as_numpy("logits")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-4)


def test_boxes_of_bytes_are_in_pixels_of_the_input(boxes: tuple[ServerProcess, Path], transport: str) -> None:
    size = (detection_package.HEIGHT, detection_package.WIDTH)
    pixels = decode_picture("", PICTURES["large"], size, resize="letterbox").pixels
    right = detection_package.right_outputs(pixels[None].astype(np.float32) / np.float32(255))
    answer = infer(boxes[0], transport, [PICTURES["large"]])
    for name, array in right.items():
        np.testing.assert_allclose(answer.as_numpy(name), array, atol=1e-3)


@pytest.mark.parametrize("nested", [True, False])
def test_base64_in_json(server: ServerProcess, nested: bool) -> None:
    texts: list[Any] = [base64.b64encode(PICTURES[kind]).decode() for kind in ("png", "webp")]
    entry = {"name": "image", "datatype": "BYTES", "shape": [2, 1] if nested else [2]}
    entry["data"] = [[text] for text in texts] if nested else texts
    wanted = [{"name": "logits", "parameters": {"classification": 1}}]
    status, answer = server.ask(INFER, json.dumps({"inputs": [entry], "outputs": wanted}).encode())
    assert status == 200
    best = [server.ask("/predict?top=1", PICTURES[kind])[1]["labels"][0]["label"] for kind in ("png", "webp")]
    assert [text.partition(":")[2].partition(":")[2] for text in answer["outputs"][0]["data"]] == best


def test_typed_contents_over_grpc(server: ServerProcess) -> None:
    message = service_pb2.ModelInferRequest(model_name=NAME)
    message.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents.append(PICTURES["png"])
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    right = infer(server, "grpc", [PICTURES["png"]]).as_numpy("logits")
    np.testing.assert_array_equal(np.frombuffer(answer.raw_output_contents[0], "<f4"), right[0])


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG file of many pixels."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


BAD = {
    "empty": (b"", 400, "the picture is empty"),
    "text": (
        b'{"image": 1}',
        400,
        "the picture starts with b'{\"image\": 1}'; expected are the bytes of an image file",
    ),
    "cut": (PICTURES["jpeg"][:300], 400, "the picture: damaged or truncated image"),
    "head": (PICTURES["png"][:20], 400, "the picture: damaged"),
    "noise": (PICTURES["png"][:60] + b"\xff" * 200, 400, "the picture: damaged"),
    "bomb": (bomb(20000, 20000), 413, "has 20000 x 20000 pixels, allowed are 8 million"),
    "bytes": (PICTURES["png"] + bytes(400_000), 413, "more than 400000 bytes"),
    "float": (picture(8, 8, mode="F", kind="TIFF"), 400, "convert it to 8 or 16 bits"),
}
CODES = {400: "INVALID_ARGUMENT", 413: "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_the_clients_fault(server: ServerProcess, kind: str) -> None:
    file, status, reason = BAD[kind]
    found, answer = server.ask("/predict", file)
    assert (found, reason in answer["error"]) == (status, True), answer


@pytest.mark.parametrize("kind", BAD)
def test_the_same_over_the_protocol(server: ServerProcess, transport: str, kind: str) -> None:
    file, status, reason = BAD[kind]
    with pytest.raises(InferenceServerException) as error:
        infer(server, transport, [PICTURES["png"], file])
    assert error.value.status() == (str(status) if transport == "http" else f"StatusCode.{CODES[status]}")
    assert reason.replace("the picture", "picture 2 of 2") in str(error.value)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_that_curl_sent_as_text_is_told(server: ServerProcess, tmp_path: Path, kind: str) -> None:
    (tmp_path / "picture").write_bytes(PICTURES[kind])
    said = {}
    for way in ("--data", "--data-binary"):
        command = ["curl", "--silent", way, f"@{tmp_path}/picture", f"{server.http}/predict"]
        said[way] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "labels" in said["--data-binary"]
    assert "as curl -d sends a file: take --data-binary" in said["--data"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "reason"),
    [
        ("/predict?top=0", {}, 400, "top: got '0', expected a whole number above 0"),
        ("/predict?top=all", {}, 400, "top: got 'all'"),
        ("/predict?top=1&top=2", {}, 400, "top: asked for twice"),
        ("/predict?min_score=0.5", {}, 400, "min_score: the task classification finds no things with scores"),
        ("/predict?min_score=nan", {}, 400, "min_score: got 'nan', expected a number from 0 to 1"),
        ("/predict?topk=1", {}, 400, "'topk': no such question; known are top, min_score"),
        ("/predict/other", {}, 404, "model 'other': no such model"),
        ("/predict", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "curl --data-binary @image.jpg"),
        ("/predict", {"Content-Encoding": "br"}, 415, "content-encoding 'br'"),
    ],
)
def test_wrong_questions(server: ServerProcess, path: str, headers: dict[str, str], status: int, reason: str) -> None:
    found, answer = server.ask(path, PICTURES["png"], headers)
    assert (found, reason in answer["error"]) == (status, True), answer


def test_a_score_below_that_of_the_export(boxes: tuple[ServerProcess, Path]) -> None:
    status, answer = boxes[0].ask("/predict?min_score=0.05", PICTURES["png"])
    assert status == 400
    assert "min_score: got 0.05, but the package's files leave out what scores below 0.1" in answer["error"]


ELEMENT = struct.pack("<I", 3) + b"abc"


@pytest.mark.parametrize(
    ("shape", "data", "reason"),
    [
        ([], ELEMENT, r"shape \[\], expected \[batch\] or \[batch, 1\]"),
        ([1, 2], ELEMENT, "expected \\[batch\\]"),
        ([1, 3, 8, 8], ELEMENT, "expected \\[batch\\]"),
        ([0], b"", "a batch of 0, expected 1 to 4"),
        ([5], ELEMENT * 5, "a batch of 5, expected 1 to 4"),
        ([2], ELEMENT, "1 elements, but its shape makes 2"),
        ([1], ELEMENT * 2, "more than 1 elements, but its shape makes 1"),
        ([1], ELEMENT[:-1], "ends within an element"),
        ([1], b"\1", "ends within an element"),
        ([1], struct.pack("<I", 11) + bytes(11), "more than 10 bytes"),
        ([1], [7], "holds 7, expected image files as texts of base64"),
        ([1], ["é"], "is no base64"),
        ([1], ["QUJ"], "is no base64"),
        ([2, 1], [["QUJD", "QUJD"]], "expected image files as texts of base64"),
    ],
)
def test_wrong_elements(shape: list[int], data: Any, reason: str) -> None:
    with pytest.raises(RefusalError, match=reason):
        read_files(InputTensor("image", "BYTES", shape, data), max_batch=4, max_bytes=10)


def test_pictures_are_counted_and_timed(server: ServerProcess) -> None:
    def read() -> Json:
        (found,) = server.ask(f"/v2/models/{NAME}/stats")[1]["model_stats"]
        return dict(found)

    before = read()
    infer(server, "http", [PICTURES["large"]] * 3)
    assert server.ask("/predict", PICTURES["large"])[0] == 200
    server.ask("/predict", b"no picture")
    after = read()
    assert after["inference_count"] - before["inference_count"] == 4
    changes = {
        part: {key: after["inference_stats"][part][key] - total[key] for key in total}
        for part, total in before["inference_stats"].items()
    }
    assert (changes["success"]["count"], changes["fail"]["count"]) == (2, 1)
    assert changes["compute_input"]["ns"] > changes["compute_infer"]["ns"]
    assert not [entry for entry in server.events("request") if entry["outcome"] == "internal"]
    assert all(line.startswith("{") for line in server.lines)


@pytest.fixture(scope="module")
def brief(folder: Path) -> Iterator[ServerProcess]:
    with serving(folder, "--workers", "1", "--timeout", "0.5") as running:
        yield running


def test_health_answers_while_pictures_are_decoded_and_what_is_late_is_given_up(
    brief: ServerProcess, transport: str
) -> None:
    assert brief.ask("/predict", PICTURES["png"])[0] == 200
    files = [picture(2400, 1600, seed=seed) for seed in range(2)] * 16  # takes seconds
    outcomes: list[str] = []

    def ask() -> None:
        with pytest.raises(InferenceServerException) as error:
            infer(brief, transport, files)
        outcomes.append(str(error.value.status()))

    asking = threading.Thread(target=ask)
    asking.start()
    waits = []
    while asking.is_alive():
        began = time.monotonic()
        assert brief.ask("/v2/health/ready")[0] == 200
        waits.append(time.monotonic() - began)
    asking.join()
    assert outcomes == ["504" if transport == "http" else "StatusCode.DEADLINE_EXCEEDED"]
    assert np.median(waits) < 0.1
    end = time.monotonic() + 2  # one picture more at most, not all that are left
    while brief.ask("/predict", PICTURES["png"])[0] != 200:
        assert time.monotonic() < end


def test_pictures_of_many_clients_are_not_mixed_up(server: ServerProcess) -> None:
    right = {kind: server.ask("/predict", file)[1] for kind, file in PICTURES.items()}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda kind: (kind, server.ask("/predict", PICTURES[kind])), list(PICTURES) * 6))
    assert all(answer == (200, right[kind]) for kind, answer in found)
