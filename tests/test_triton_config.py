"""The configurations for Triton say what the ONNX files say, in Triton's own terms, and a difference is found."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from pipeline.core.errors import GateError, UserError
from pipeline.package.reader import Package
from pipeline.package.triton_config import check_triton_configs, write_triton_configs
from tests import detection_package
from tests.helpers import ROOT
from workbench.serving_helpers import LABELS, NAME, SIZE, make_package

ALL = ("fp16", "int8-cpu")


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return Package.open(make_package(tmp_path / "package", more=ALL))


@pytest.fixture
def repository(tmp_path: Path, package: Package) -> Path:
    write_triton_configs(tmp_path / "triton", package, max_batch=32, num_threads=2)
    return tmp_path / "triton"


def config(repository: Path, suffix: str) -> ModelConfig:
    return text_format.Parse((repository / f"{NAME}{suffix}" / "config.pbtxt").read_text(), ModelConfig())


def test_models_and_files(repository: Path) -> None:
    found = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    models = (f"{NAME}{suffix}" for suffix in ("", "-int8-cpu", "-gpu", "-tensorrt"))
    assert found == {f"{name}/{file}" for name in models for file in ("config.pbtxt", "labels.txt")}
    assert (repository / NAME / "labels.txt").read_text().splitlines() == LABELS


@pytest.mark.parametrize(
    ("suffix", "backend", "file", "kind"),
    [
        ("", "onnxruntime", "model.onnx", "KIND_CPU"),
        ("-int8-cpu", "onnxruntime", "model.onnx", "KIND_CPU"),
        ("-gpu", "onnxruntime", "model.onnx", "KIND_GPU"),
        ("-tensorrt", "tensorrt", "model.plan", "KIND_GPU"),
    ],
)
def test_configurations(repository: Path, suffix: str, backend: str, file: str, kind: str) -> None:
    found = config(repository, suffix)
    assert (found.name, found.backend, found.default_model_filename) == (f"{NAME}{suffix}", backend, file)
    assert found.max_batch_size == 32
    (image,), (logits,) = found.input, found.output
    assert (image.name, list(image.dims), image.data_type) == ("image", [3, SIZE, SIZE], 11)  # TYPE_FP32
    assert (logits.name, list(logits.dims), logits.data_type) == ("logits", [10], 11)
    assert logits.label_filename == "labels.txt"
    (group,) = found.instance_group
    assert ModelInstanceGroup.Kind.Name(group.kind) == kind
    on_gpu = kind == "KIND_GPU"
    assert found.HasField("dynamic_batching") == on_gpu
    threads = {} if on_gpu else {"intra_op_thread_count": "2"}
    assert {key: value.string_value for key, value in found.parameters.items()} == threads


def test_detections_have_four_outputs_and_no_labels(tmp_path: Path) -> None:
    package = Package.open(detection_package.make_package(tmp_path / "package", more=("fp16",)))
    write_triton_configs(tmp_path / "triton", package, max_batch=8, num_threads=1)
    check_triton_configs(tmp_path / "triton", package)
    assert {path.name for path in (tmp_path / "triton").iterdir()} == {NAME, f"{NAME}-gpu", f"{NAME}-tensorrt"}
    for suffix in ("", "-gpu", "-tensorrt"):
        found = config(tmp_path / "triton", suffix)
        assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in found.output] == [
            ("num_detections", 8, [1]),  # TYPE_INT32
            ("detection_boxes", 11, [5, 4]),  # TYPE_FP32
            ("detection_scores", 11, [5]),
            ("detection_classes", 8, [5]),
        ]
        assert [list(tensor.dims) for tensor in found.input] == [[3, 64, 96]]
        assert not any(tensor.label_filename for tensor in found.output)
        assert found.HasField("dynamic_batching") == (suffix != "")
    assert not list((tmp_path / "triton").rglob("labels.txt"))


def test_what_the_package_lacks_is_left_out(tmp_path: Path) -> None:
    package = Package.open(make_package(tmp_path / "package", dtype="uint8"))
    write_triton_configs(tmp_path / "triton", package, max_batch=8, num_threads=1)
    check_triton_configs(tmp_path / "triton", package)
    assert {path.name for path in (tmp_path / "triton").iterdir()} == {NAME, f"{NAME}-gpu", f"{NAME}-tensorrt"}
    assert config(tmp_path / "triton", "-gpu").input[0].data_type == 2  # TYPE_UINT8


def test_same_package_same_bytes(tmp_path: Path, repository: Path, package: Package) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.package.reader import Package;"
        "from pipeline.package.triton_config import write_triton_configs as write;"
        "write(Path(sys.argv[2]), Package.open(Path(sys.argv[1])), max_batch=32, num_threads=2)"
    )
    again = tmp_path / "again"
    subprocess.run([sys.executable, "-c", code, str(package.folder), str(again)], cwd=ROOT, check=True)
    assert digests(again) == digests(repository)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_right_configurations_pass(repository: Path, package: Package) -> None:
    check_triton_configs(repository, package)


def edited(old: str, new: str) -> Callable[[Path], None]:
    """Return what replaces ``old`` in the configuration of the first model."""

    def edit(repository: Path) -> None:
        path = repository / NAME / "config.pbtxt"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def moved(repository: Path) -> None:
    (repository / NAME).rename(repository / "other")


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "unknown field": (edited("backend:", "backnd:"), r"config.pbtxt: not a configuration of Triton: .*backnd"),
    "name": (edited(f'name: "{NAME}"', 'name: "a"'), r"config.pbtxt: name is 'a', but its file has 'fmkt-student'"),
    "backend": (edited("onnxruntime", "python"), r"backend is 'python', but its file has 'onnxruntime'"),
    "file": (edited("model.onnx", "model.bin"), r"default_model_filename is 'model.bin'"),
    "input": (edited('name: "image"', 'name: "x"'), r"input and output is \[\('x', 'TYPE_FP32', \['batch', 3, 8, 8\]"),
    "type": (edited("TYPE_FP32", "TYPE_FP16"), r"'TYPE_FP16'.* but its file has .*'TYPE_FP32'"),
    "dims": (edited("dims: 8", "dims: 9"), r"\['batch', 3, 9, 9\].* but its file has .*\['batch', 3, 8, 8\]"),
    "classes": (edited("dims: 10", "dims: 11"), r"\['batch', 11\].* but its file has .*\['batch', 10\]"),
    "no batch": (edited("max_batch_size: 32", "max_batch_size: 0"), r"max_batch_size is 0"),
    "no labels": (lambda r: (r / NAME / "labels.txt").unlink(), r"labels.txt: cannot be read"),
    "labels": (lambda r: (r / NAME / "labels.txt").write_text("a\n"), r"labels.txt: does not hold the package's 10"),
    "moved": (moved, r"holds models \['fmkt-student-gpu', .*'other'\], expected"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_difference_is_found_and_named(repository: Path, package: Package, kind: str) -> None:
    change, reason = WRONG[kind]
    change(repository)
    with pytest.raises(GateError, match=reason):
        check_triton_configs(repository, package)


def test_a_damaged_package_is_refused(tmp_path: Path, package: Package) -> None:
    package.files["fp32"].write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model.onnx: differs from its SHA-256"):
        write_triton_configs(tmp_path / "triton", package, max_batch=32, num_threads=1)


def test_an_onnx_file_of_other_types_is_found(repository: Path, package: Package) -> None:
    path = package.files["fp32"]
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    with pytest.raises(GateError, match=r"'TYPE_FP32', \['batch', 3.* but its file has .*'TYPE_UINT8', \[1, 3"):
        check_triton_configs(repository, package)
    for damage in (lambda: path.write_bytes(b"\xff"), path.unlink):
        damage()
        with pytest.raises(GateError, match=r"model.onnx: cannot be read as ONNX"):
            check_triton_configs(repository, package)
