"""A network with several outputs, one of them int32, of a task without classes: served, predicted with and verified."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import json_format, text_format
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from pipeline.package.reader import Package
from pipeline.package.triton_config import check_triton_configs, write_triton_configs
from pipeline.tasks import table
from stages.__main__ import main
from tests.toy_task import COUNT, LEVELS, make_package, pictures, register, right_outputs
from workbench.serving_helpers import CLIENTS, NAME, ServerProcess, random_images, serving

START = "from tests.toy_task import register; register(); from stages.commands.serve import serve; serve()"
PATH = f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("brightness") / "package")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with serving(folder, code=START) as running:
        yield running


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setattr(table.TASKS, "_entries", dict(table.TASKS._entries))
    register()
    return Package.open(folder)


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Any]:
    library = CLIENTS[request.param]
    with library.InferenceServerClient(getattr(server, request.param)) as connected:
        connected.library = library
        yield connected


def infer(client: Any, images: np.ndarray, wanted: list[str] | None, **options: Any) -> Any:
    tensor = client.library.InferInput("image", images.shape, "FP32")
    tensor.set_data_from_numpy(images)
    outputs = None if wanted is None else [client.library.InferRequestedOutput(name, **options) for name in wanted]
    return client.infer(NAME, [tensor], outputs=outputs)


def as_json(message: Any) -> Any:
    return (
        message if isinstance(message, dict) else json_format.MessageToDict(message, preserving_proto_field_name=True)
    )


@pytest.mark.parametrize("wanted", [None, [LEVELS], [COUNT], [COUNT, LEVELS]], ids=str)
def test_outputs_come_as_asked_for_in_their_order(client: Any, wanted: list[str] | None) -> None:
    images = pictures(3).astype(np.float32) / np.float32(255)
    answer = infer(client, images, wanted)
    names = [output["name"] for output in as_json(answer.get_response())["outputs"]]
    assert names == (wanted or [LEVELS, COUNT])
    for name in names:
        right, found = right_outputs(images)[name], answer.as_numpy(name)
        assert found.dtype == right.dtype
        np.testing.assert_allclose(found, right, atol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "options", "said"),
    [
        ([LEVELS, "logits"], {}, "output 'logits': the model has no such output; it has 'levels', 'bright_channels'"),
        ([COUNT, LEVELS, COUNT], {}, "output 'bright_channels': asked for 2 times"),
        ([LEVELS], {"class_count": 2}, "output 'levels': its values are not those of classes"),
    ],
)
def test_outputs_that_cannot_be_had(client: Any, wanted: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InferenceServerException, match=said):
        infer(client, random_images(1), wanted, **options)


def test_metadata_and_configuration_list_every_output(client: Any) -> None:
    described = as_json(client.get_model_metadata(NAME))
    assert [(entry["name"], entry["datatype"]) for entry in described["outputs"]] == [
        (LEVELS, "FP32"),
        (COUNT, "INT32"),
    ]
    assert [[int(size) for size in entry["shape"]] for entry in described["outputs"]] == [[-1, 3], [-1, 1]]
    config = as_json(client.get_model_config(NAME))
    config = config.get("config", config)
    assert [(entry["name"], entry["data_type"]) for entry in config["output"]] == [
        (LEVELS, "TYPE_FP32"),
        (COUNT, "TYPE_INT32"),
    ]


def request(outputs: list[dict[str, Any]]) -> bytes:
    images = random_images(2)
    entry = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
    return json.dumps({"inputs": [entry], "outputs": outputs}).encode()


def test_plain_json_and_binary_data_in_one_answer(server: ServerProcess) -> None:
    right = right_outputs(random_images(2))
    host, _, port = server.http.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    wanted = [{"name": COUNT, "parameters": {"binary_data": True}}, {"name": LEVELS}]
    connection.request("POST", PATH, request(wanted))
    answer = connection.getresponse()
    content, length = answer.read(), int(answer.headers["Inference-Header-Content-Length"])
    connection.close()
    counts, levels = json.loads(content[:length])["outputs"]
    assert (counts["name"], counts["datatype"], counts["shape"]) == (COUNT, "INT32", [2, 1])
    assert counts["parameters"] == {"binary_data_size": 8}
    np.testing.assert_array_equal(np.frombuffer(content[length:], "<i4")[:, None], right[COUNT])
    np.testing.assert_allclose(np.array(levels["data"]).reshape(levels["shape"]), right[LEVELS], atol=1e-6)
    counts, levels = server.ask(PATH, request([{"name": COUNT}, {"name": LEVELS}]))[1]["outputs"]
    assert counts["data"] == right[COUNT].ravel().tolist()
    assert all(type(value) is int for value in counts["data"])


def test_both_parts_of_a_message(server: ServerProcess) -> None:
    images = random_images(4)
    message = service_pb2.ModelInferRequest(model_name=NAME, raw_input_contents=[images.tobytes()])
    message.inputs.add(name="image", datatype="FP32", shape=images.shape)
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message)
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [(LEVELS, [4, 3]), (COUNT, [4, 1])]
    levels, counts = (
        np.frombuffer(raw, dtype) for raw, dtype in zip(answer.raw_output_contents, ("<f4", "<i4"), strict=True)
    )
    np.testing.assert_allclose(levels.reshape(4, 3), right_outputs(images)[LEVELS], atol=1e-6)
    np.testing.assert_array_equal(counts.reshape(4, 1), right_outputs(images)[COUNT])


def test_an_output_that_is_not_finite_is_refused_whatever_was_asked_for(server: ServerProcess) -> None:
    images = np.full((1, 3, 8, 8), 3e38, np.float32)
    entry = {"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
    status, answer = server.ask(PATH, json.dumps({"inputs": [entry], "outputs": [{"name": COUNT}]}).encode())
    assert (status, "output 'levels' of these values is not finite" in answer["error"]) == (400, True)


def test_predict_and_verify_ask_the_task(package: Package, tmp_path: Path) -> None:
    pixels = pictures(1)[0]
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(tmp_path / "one.png")
    right = right_outputs(pixels[None].astype(np.float32) / 255)
    brightest = [["red", "green", "blue"][i] for i in np.argsort(-right[LEVELS][0])[:2]]
    words = ["predict", "--package", str(package.folder), "--top", "2", str(tmp_path / "one.png")]
    found = CliRunner().invoke(main, [*words, "--json"])
    assert json.loads(found.output) == {
        "image": str(tmp_path / "one.png"),
        "bright": int(right[COUNT][0, 0]),
        "channels": brightest,
    }
    assert CliRunner().invoke(main, words).output.endswith(f"bright, {' > '.join(brightest)}\n")
    verified = CliRunner().invoke(main, ["verify", "--package", str(package.folder)])
    assert verified.exit_code == 0, verified.output
    assert "intact" in verified.output


def test_triton_gets_every_output_and_no_class_names(package: Package, tmp_path: Path) -> None:
    write_triton_configs(tmp_path / "triton", package, max_batch=8, num_threads=1)
    check_triton_configs(tmp_path / "triton", package)
    config = text_format.Parse((tmp_path / "triton" / NAME / "config.pbtxt").read_text(), ModelConfig())
    assert [(output.name, output.data_type, list(output.dims)) for output in config.output] == [
        (LEVELS, 11, [3]),  # TYPE_FP32
        (COUNT, 8, [1]),  # TYPE_INT32
    ]
    assert not any(output.label_filename for output in config.output)
    assert not list((tmp_path / "triton").rglob("labels.txt"))
