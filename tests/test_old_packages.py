"""A package of version 0.1, kept as it was written, still works: its manifest names no task and has no signature."""

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.numpy import load_file

from pipeline.core.errors import GateError
from pipeline.core.signature import Signature, TensorSpec
from pipeline.export.tensorrt.plan import trtexec_command
from pipeline.package.build_engine import plan_engine
from pipeline.package.reader import Package
from pipeline.package.triton_config import check_triton_configs
from pipeline.runtimes.engine_file import read_signature
from pipeline.serving.http_api import HTTP
from pipeline.serving.models import load_models, package_facts
from pipeline.serving.requests import InferRequest, WantedOutput
from pipeline.serving.service import Limits, Service
from pipeline.serving.tensors import InputTensor
from stages.__main__ import main
from tests.helpers import refused

PACKAGE = Path(__file__).parent / "packages" / "v0_1"
SIGNATURE = Signature(TensorSpec("image", "float32", (3, 8, 8)), (TensorSpec("logits", "float32", (10,)),))


@pytest.fixture(scope="module")
def package() -> Package:
    return Package.open(PACKAGE)


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = load_file(PACKAGE / "samples.safetensors")
    return found


def run(command: str, *words: str) -> Result:
    return CliRunner().invoke(main, [command, "--package", str(PACKAGE), *words])


def test_it_is_as_version_0_1_wrote_it(package: Package) -> None:
    manifest = json.loads((PACKAGE / "manifest.json").read_text())
    assert not {"task", "signature"} & set(manifest)
    assert package.signature == SIGNATURE
    assert (package.task.name, package.image_size, package.input_dtype) == ("classification", (8, 8), "float32")
    assert package.class_names == tuple("0123456789")
    assert list(package.files) == ["fp32", "int8-cpu"]


def test_it_is_verified(samples: dict[str, np.ndarray]) -> None:
    result = run("verify")
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^model\S*\.onnx .*right$", result.output, re.MULTILINE)) == 2
    assert len(samples["images"]) == 8


def test_wrong_outputs_in_it_are_found(package: Package, tmp_path: Path) -> None:
    """Its gates have the names of today's."""
    folder = shutil.copytree(PACKAGE, tmp_path / "package")
    shutil.copyfile(folder / "model.int8-cpu.onnx", folder / "model.onnx")
    (folder / "SHA256SUMS").write_text(
        re.sub(
            r"\w+(?=  model\.onnx$)",
            package.sums["model.int8-cpu.onnx"],
            (folder / "SHA256SUMS").read_text(),
            flags=re.M,
        )
    )
    with pytest.raises(GateError, match=r"model.onnx, packaged samples, 8 images: outputs differ by"):
        load_models(Package.open(folder), ["fp32"], provider="cpu", num_threads=1)


def test_it_predicts(samples: dict[str, np.ndarray], tmp_path: Path) -> None:
    pixels, logits = samples["images"][3], samples["logits"][3]
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(tmp_path / "3.png")
    (found,) = map(json.loads, run("predict", "--json", str(tmp_path / "3.png")).stdout.splitlines())
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = np.argsort(-shares)[:3]
    assert [item["label"] for item in found["labels"]] == list(map(str, best))
    np.testing.assert_allclose([item["probability"] for item in found["labels"]], shares[best], atol=1e-4)


def test_it_is_served(package: Package, samples: dict[str, np.ndarray]) -> None:
    images = samples["images"].astype(np.float32) / np.float32(255)
    models = load_models(package, ["fp32", "int8-cpu"], provider="cpu", num_threads=1)
    tensor = InputTensor("image", "FP32", images.shape, images.tobytes())
    wanted = [WantedOutput("logits", binary=False, num_largest=1)]
    requests = [
        InferRequest(package.name, "", "", [tensor], outputs, binary=True, timeout=None) for outputs in ([], wanted)
    ]

    async def ask() -> list[Any]:
        limits = Limits(
            max_batch=8,
            max_bytes=10**6,
            max_picture_bytes=10**6,
            max_json_bytes=10**6,
            max_connections=16,
            max_queue=4,
            timeout=10,
            workers=1,
        )
        service = Service(models, limits, package_facts(package))
        answers = []
        for request in requests:
            with service.accepted(HTTP) as entry:
                answers.append(await service.infer(request, entry))
        service.workers.close()
        return [answer.outputs[0].array for answer in answers]

    logits, texts = asyncio.run(ask())
    np.testing.assert_allclose(logits, samples["logits"], atol=1e-4)
    assert [text.split(":")[2] for text in texts[:, 0]] == [str(i) for i in samples["logits"].argmax(axis=1)]
    described = models[1].metadata()
    assert (described["name"], described["outputs"]) == (
        "fmkt-student-int8-cpu",
        [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    )


def test_it_is_timed() -> None:
    result = run("benchmark", "--iterations", "10", "--warmup", "1", "--batch", "2")
    assert result.exit_code == 0, result.output
    assert [line.split(",")[0] for line in result.stdout.splitlines()[2:4]] == ["fp32", "int8-cpu"]


def test_its_engine_is_planned_with_its_own_settings(package: Package) -> None:
    plan = plan_engine(package, "fp32", {"opt_batch": 4})
    assert (plan.signature, plan.batches) == (SIGNATURE, {"min": 1, "opt": 4, "max": 16})
    assert "--maxShapes=image:16x3x8x8" in trtexec_command(plan)
    refused(run("build-engine", "--precision", "fp16"), "has no file of precision 'fp16'; it has fp32, int8-cpu")


def test_its_triton_repository_is_still_right(package: Package) -> None:
    check_triton_configs(PACKAGE / "triton", package)


def test_a_sidecar_of_one_output_is_read() -> None:
    description = {
        "input": {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]},
        "output": {"name": "logits", "dtype": "float32", "shape": ["batch", 10]},
    }
    assert read_signature(description) == SIGNATURE
