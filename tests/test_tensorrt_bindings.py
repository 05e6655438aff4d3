"""The build and the runtime against the real Python API of TensorRT 10 and 11; see ``tests.tensorrt_bindings``."""

import ast
from pathlib import Path
from typing import Any

import pytest

from tests.tensorrt_bindings import WHEELS, NotAvailable, fetch_bindings, run_here

ROOT = Path(__file__).parent.parent
ROOMS = ("pipeline/export/tensorrt/builder.py", "pipeline/runtimes/tensorrt.py")
OPTIONS = {
    "precision": "fp32",
    "min_batch": 1,
    "opt_batch": 4,
    "max_batch": 16,
    "optimization_level": 2,
    "workspace_mib": 512,
    "version_compatible": False,
    "hardware_compatibility": "none",
    "timing_cache": True,
}
COMPATIBLE = OPTIONS | {"version_compatible": True, "hardware_compatibility": "ampere_plus", "precision": "fp16"}
SAME_CAPABILITY = OPTIONS | {"hardware_compatibility": "same_compute_capability"}
IMAGE = {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 6]}
LOGITS = {"name": "logits", "dtype": "float32", "shape": ["batch", 4]}
DETECTIONS = [
    {"name": "num_detections", "dtype": "int32", "shape": ["batch", 1]},
    {"name": "detection_boxes", "dtype": "float32", "shape": ["batch", 5, 4]},
    {"name": "detection_scores", "dtype": "float32", "shape": ["batch", 5]},
    {"name": "detection_classes", "dtype": "int32", "shape": ["batch", 5]},
]
DESCRIPTION = {
    "input": IMAGE,
    "outputs": [LOGITS],
    "batch": {"min": 2, "opt": 4, "max": 5},
    "options": {"version_compatible": False},
    "tensorrt": "11.4.0",
    "gpu": "NVIDIA H200",
    "precision": "fp32",
}
BYTES = DESCRIPTION | {"input": IMAGE | {"dtype": "uint8"}, "options": {"version_compatible": True}}
OLD = {key: value for key, value in DESCRIPTION.items() if key != "outputs"} | {"output": LOGITS}
"""As version 0.1 described an engine."""
SEVERAL = DESCRIPTION | {"outputs": DETECTIONS}
FLOATS = {"image": "FLOAT", "logits": "FLOAT"}
LISTS = {
    "image": "FLOAT",
    "num_detections": "INT32",
    "detection_boxes": "FLOAT",
    "detection_scores": "FLOAT",
    "detection_classes": "INT32",
}


def api_names() -> list[str]:
    """Return every dotted name of the module tensorrt in this project's code, without the module."""
    found = set()
    for room in ROOMS:
        for node in ast.walk(ast.parse((ROOT / room).read_text())):
            if isinstance(node, ast.Attribute):
                module, _, name = ast.unparse(node).partition(".")
                if module in {"trt", "tensorrt"}:
                    found.add(name)
    return sorted(found)


@pytest.fixture(scope="module", params=sorted(WHEELS), ids=lambda version: f"tensorrt-{version}")
def bindings(request: pytest.FixtureRequest) -> Path:
    """Return the folder of one version's bindings; skips where they cannot be had."""
    try:
        return fetch_bindings(request.param, request.config.cache.mkdir("tensorrt-bindings"))
    except NotAvailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def answers(bindings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the API was asked, by name of the case; one process for all of them."""
    folder = tmp_path_factory.mktemp("build")
    cache, filled = folder / "new" / "a.timing", folder / "b.timing"
    filled.write_text("earlier timings")
    build: dict[str, Any] = {"onnx": "some/model.onnx", "options": OPTIONS, "cache": None}
    run: dict[str, Any] = {"description": DESCRIPTION, "dtypes": FLOATS, "batches": [2, 4, 5]}
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "names": ("names", {"names": api_names()}),
        "start": ("start", {"onnx": "some/model.onnx", "options": OPTIONS}),
        "plain": ("build", build | {"cache": str(cache)}),
        "compatible": ("build", build | {"options": COMPATIBLE, "cache": str(filled)}),
        "same_capability": ("build", build | {"options": SAME_CAPABILITY}),
        "weak": ("build", build | {"typed": False}),
        "run": ("runtime", run),
        "run_bytes": ("runtime", run | {"description": BYTES, "dtypes": FLOATS | {"image": "UINT8"}}),
        "run_old": ("runtime", run | {"description": OLD}),
        "run_several": ("runtime", run | {"description": SEVERAL, "dtypes": LISTS}),
        "wide_counts": ("runtime", run | {"description": SEVERAL, "dtypes": LISTS | {"num_detections": "INT64"}}),
        "half_output": ("runtime", run | {"dtypes": FLOATS | {"logits": "HALF"}}),
        "another_tensor": ("runtime", run | {"dtypes": FLOATS | {"aux": "FLOAT"}}),
        "another_profile": ("runtime", run | {"batches": [1, 4, 5]}),
    }
    found = run_here(bindings, {"calls": list(calls.values())})
    kept = {"new_cache": cache.read_text(), "filled_cache": filled.read_text()}
    return dict(zip(calls, found, strict=True)) | kept


def test_every_name_of_the_api_exists(answers: dict[str, Any], bindings: Path) -> None:
    assert len(api_names()) >= 8
    assert answers["names"]["missing"] == []
    assert bindings.name.startswith(answers["names"]["version"])


def test_the_network_is_strongly_typed_and_no_flag_chooses_a_precision(answers: dict[str, Any]) -> None:
    plain = answers["plain"]
    assert plain["network_flags"] == ["STRONGLY_TYPED"]
    assert (plain["set_flags"], plain["cleared_flags"]) == ([], ["TF32"])
    assert (plain["plan"], plain["parsed"]) == ("the plan", "some/model.onnx")
    assert answers["compatible"]["set_flags"] == ["VERSION_COMPATIBLE"]
    assert answers["compatible"]["network_flags"] == ["STRONGLY_TYPED"]


def test_profile_memory_and_levels_are_those_asked_for(answers: dict[str, Any]) -> None:
    plain = answers["plain"]
    assert plain["profiles"] == [["image", [1, 3, 8, 6], [4, 3, 8, 6], [16, 3, 8, 6]]]
    assert plain["num_profiles"] == 1
    assert plain["pools"] == {"WORKSPACE": 512 * 2**20}
    assert plain["optimization_level"] == 2
    assert plain["hardware"] is None
    assert answers["compatible"]["hardware"] == "AMPERE_PLUS"


def test_a_level_that_this_version_lacks_is_refused(answers: dict[str, Any]) -> None:
    found = answers["same_capability"]
    if "SAME_COMPUTE_CAPABILITY" in answers["names"]["HardwareCompatibilityLevel"]:
        assert found["hardware"] == "SAME_COMPUTE_CAPABILITY"
    else:
        assert answers["names"]["version"].startswith("10.3")
        assert found[0] == "UserError"
        assert "allowed here: none, ampere_plus" in found[1]


def test_a_timing_cache_is_read_where_there_is_one_and_written(answers: dict[str, Any]) -> None:
    assert answers["plain"]["timings_loaded"] == [""]
    assert answers["compatible"]["timings_loaded"] == ["earlier timings", "earlier timings"]  # used, then merged
    assert (answers["new_cache"], answers["filled_cache"]) == ("timings", "timings")


def test_tensorrt_10_must_confirm_strong_types(answers: dict[str, Any]) -> None:
    if answers["names"]["version"].startswith("10."):
        assert answers["weak"][0] == "GateError"
        assert "did not make the network strongly typed" in answers["weak"][1]
        assert "FP16" in answers["names"]["BuilderFlag"]
    else:
        assert answers["weak"]["plan"] == "the plan"
        assert not {"FP16", "INT8"} & set(answers["names"]["BuilderFlag"])


def test_a_builder_that_does_not_start_is_an_error(answers: dict[str, Any]) -> None:
    """Here nothing is a mock: the empty library returns no builder, as the real one does with an old driver."""
    kind, text = answers["start"]
    assert kind == "GateError"
    assert f"TensorRT {answers['names']['version']} could not build the engine" in text
    assert "Does the driver fit" in text


def test_the_runtime_loads_checks_and_runs(answers: dict[str, Any]) -> None:
    run = answers["run"]
    assert run["plan"] == "the plan"
    assert run["batches"] == [[5, "float32", 1.0], [2, "float32", 1.0]]
    assert run["outputs"] == {"logits": [[7, 4], "float32", 1.0]}
    assert run["words"] == "TensorRT 11.4.0, NVIDIA H200, fp32"


def test_an_engine_that_version_0_1_described_runs(answers: dict[str, Any]) -> None:
    assert answers["run_old"] == answers["run"]


def test_an_engine_may_have_several_outputs(answers: dict[str, Any]) -> None:
    """Seven images are brought in two calls, and what is listed of each stays its own."""
    assert answers["run_several"]["outputs"] == {
        "num_detections": [[7, 1], "int32", 1.0],
        "detection_boxes": [[7, 5, 4], "float32", 1.0],
        "detection_scores": [[7, 5], "float32", 1.0],
        "detection_classes": [[7, 5], "int32", 1.0],
    }
    kind, text = answers["wide_counts"]
    assert kind == "GateError"
    assert "num_detections (OUTPUT, INT64)" in text


def test_only_a_version_compatible_plan_may_bring_host_code(answers: dict[str, Any]) -> None:
    assert answers["run"]["host_code_allowed"] is False
    assert answers["run_bytes"]["host_code_allowed"] is True


def test_an_engine_for_pixels_gets_pixels(answers: dict[str, Any]) -> None:
    assert answers["run_bytes"]["batches"] == [[5, "uint8", 255.0], [2, "uint8", 255.0]]


def test_an_engine_with_another_interface_is_refused(answers: dict[str, Any]) -> None:
    assert answers["half_output"][0] == "GateError"
    assert "logits (OUTPUT, HALF), expected image (INPUT, FLOAT), logits (OUTPUT, FLOAT)" in answers["half_output"][1]
    assert answers["another_tensor"][0] == "GateError"
    assert "aux (OUTPUT, FLOAT)" in answers["another_tensor"][1]
    assert answers["another_profile"][0] == "GateError"
    assert "batches of [1, 4, 5]" in answers["another_profile"][1]


def test_libraries_that_are_missing_are_named(bindings: Path) -> None:
    call = ("start", {"onnx": "some/model.onnx", "options": OPTIONS})
    ((kind, text),) = run_here(bindings, {"calls": [call]}, libraries=False)
    assert kind == "UserError"
    assert "TensorRT cannot be loaded: lib" in text
