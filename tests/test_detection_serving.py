"""Detections over HTTP and gRPC: four outputs, whole numbers and others, any of them, as JSON or as bytes."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from tests.detection_package import HEIGHT, OUTPUTS, WIDTH, make_package, pictures, right_outputs
from workbench.serving_helpers import CLIENTS, NAME, ServerProcess, serving

PATH = f"/v2/models/{NAME}/infer"
SHAPES = [[1], [5, 4], [5], [5]]
TOLERANCE = 2e-4
"""Of a sum of 18,432 numbers in float32."""
TYPES = ["INT32", "FP32", "FP32", "INT32"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(make_package(tmp_path_factory.mktemp("detection") / "package")) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[Any]:
    library = CLIENTS[request.param]
    with library.InferenceServerClient(getattr(server, request.param)) as connected:
        connected.library = library
        yield connected


def images(count: int) -> NDArray[np.float32]:
    return pictures(count).astype(np.float32) / np.float32(255)


def infer(client: Any, wanted: list[str] | None, given: NDArray[np.float32], **options: Any) -> Any:
    tensor = client.library.InferInput("image", given.shape, "FP32")
    tensor.set_data_from_numpy(given)
    outputs = None if wanted is None else [client.library.InferRequestedOutput(name, **options) for name in wanted]
    return client.infer(NAME, [tensor], outputs=outputs)


def as_json(message: Any) -> Any:
    if isinstance(message, dict):
        return message
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@pytest.mark.parametrize("wanted", [None, OUTPUTS[::-1], OUTPUTS[1:3], OUTPUTS[:1], OUTPUTS[3:]], ids=str)
def test_any_outputs_come_as_asked_for(client: Any, wanted: list[str] | None) -> None:
    answer = infer(client, wanted, images(3))
    names = [output["name"] for output in as_json(answer.get_response())["outputs"]]
    assert names == (wanted or OUTPUTS)
    right = right_outputs(images(3))
    for name in names:
        found = answer.as_numpy(name)
        assert (found.dtype, found.shape) == (right[name].dtype, right[name].shape)
        np.testing.assert_allclose(found, right[name], atol=TOLERANCE)


def test_metadata_and_configuration_say_types_and_shapes(client: Any) -> None:
    described = as_json(client.get_model_metadata(NAME))
    assert [output["name"] for output in described["outputs"]] == OUTPUTS
    assert [output["datatype"] for output in described["outputs"]] == TYPES
    assert [[int(size) for size in output["shape"]] for output in described["outputs"]] == [[-1, *s] for s in SHAPES]
    config = as_json(client.get_model_config(NAME))
    outputs = config.get("config", config)["output"]
    assert [(output["name"], output["data_type"]) for output in outputs] == [
        (name, f"TYPE_{kind}") for name, kind in zip(OUTPUTS, TYPES, strict=True)
    ]
    assert [[int(size) for size in output["dims"]] for output in outputs] == SHAPES


def test_there_are_no_classes_to_ask_for(client: Any) -> None:
    said = "output 'detection_scores': its values are not those of classes, so classification has no sense"
    with pytest.raises(InferenceServerException, match=said):
        infer(client, ["detection_scores"], images(1), class_count=2)
    extensions = as_json(client.get_server_metadata())["extensions"]
    assert "classification" not in extensions
    assert "binary_tensor_data" in extensions


def request(given: NDArray[np.float32], *outputs: dict[str, Any]) -> bytes:
    entry = {"name": "image", "datatype": "FP32", "shape": list(given.shape), "data": given.ravel().tolist()}
    return json.dumps({"inputs": [entry], "outputs": list(outputs)}).encode()


def test_json_and_bytes_in_one_answer(server: ServerProcess) -> None:
    given, right = images(2), right_outputs(images(2))
    counts, scores = ({"name": name, "parameters": {"binary_data": True}} for name in (OUTPUTS[0], OUTPUTS[2]))
    status, answer = server.ask(PATH, request(given, counts, {"name": OUTPUTS[1]}, scores))
    assert (status, type(answer)) == (200, bytes)
    text, tail = answer[: -(2 + 2 * 5) * 4], answer[-(2 + 2 * 5) * 4 :]
    assert struct.unpack("<2i", tail[:8]) == (3, 3)
    found = np.frombuffer(tail[8:], "<f4").reshape(2, 5)
    np.testing.assert_allclose(found, right["detection_scores"], atol=TOLERANCE)
    boxes = json.loads(text)["outputs"][1]
    np.testing.assert_array_equal(np.array(boxes["data"]).reshape(boxes["shape"]), right["detection_boxes"])


def test_whole_numbers_are_whole_in_json(server: ServerProcess) -> None:
    _, answer = server.ask(PATH, request(images(1), {"name": OUTPUTS[3]}))
    assert answer["outputs"][0]["data"] == [2, 0, 1, -1, -1]


def test_scores_that_are_not_finite_are_refused_whatever_was_asked_for(server: ServerProcess) -> None:
    given = np.full((1, 3, HEIGHT, WIDTH), 3e38, np.float32)
    status, answer = server.ask(PATH, request(given, {"name": OUTPUTS[0]}))
    assert (status, "output 'detection_scores' of these values is not finite" in answer["error"]) == (400, True)


def test_an_input_of_another_size_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"expected \[batch, 3, 64, 96\]"):
        infer(client, None, np.zeros((1, 3, WIDTH, HEIGHT), np.float32))
