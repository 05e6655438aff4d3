"""The package: what a consumer downloads, every fact in it taken from the stages' own records."""

import shutil
from pathlib import Path

from pipeline.core.files import Json, read_json, sha256, write_json, write_text
from pipeline.data.dataset import DataInfo
from pipeline.export.onnx.exporter import read_metadata
from pipeline.package.model_card import model_card
from pipeline.package.reader import LABELS, MANIFEST, SAMPLES, SUMS, read_package
from pipeline.package.triton_repository import check_triton_repository, write_triton_repository

TRITON_THREADS = 1
RESIZING = {
    "none": "none: the training images had image_size already",
    "central_square": "scaled to cover image_size (bicubic), then the centre cut out",
}
RANGES = {"float32": [0, 1], "uint8": [0, 255]}


def write_package(
    folder: Path,
    *,
    name: str,
    description: str,
    onnx: Path,
    calibration: Json,
    tradeoff: Path,
    info: DataInfo,
    evaluation: Json,
    teacher: Json,
    student: Json,
    engine: Json,
) -> None:
    """Fill ``folder`` with all that a consumer needs: ONNX files, labels, preprocessing, samples, records, model card.

    Args:
        onnx, tradeoff: the folders of the ONNX export and of the trade-off between accuracy and latency.
        calibration: content of calibration.json.
        evaluation: what ``pipeline.evaluation.runtime_report`` reports of ONNX Runtime on the test split.
        teacher, student: reports of the training stages.
        engine: how an engine is built from the package: the parameters export_tensorrt.

    Raises:
        GateError: the Triton repository does not fit the ONNX files.
    """
    manifest = read_json(onnx / MANIFEST) | {"name": name}
    for file in (*manifest["files"], SAMPLES):
        shutil.copyfile(onnx / file, folder / file)
    shutil.copyfile(tradeoff / "tradeoff.svg", folder / "tradeoff.svg")
    records = {
        MANIFEST: manifest,
        LABELS: {"labels": list(info.classes)},
        "preprocessing.json": preprocessing(info, manifest["input"]),
        "calibration.json": calibration,
        "metrics.json": {"student": evaluation | {"num_parameters": student["num_parameters"]}, "teacher": teacher},
        "tradeoff.json": read_json(tradeoff / "tradeoff.json"),
        "engine.json": engine,
    }
    for file, content in records.items():
        write_json(folder / file, content)
    facts: Json = {"name": name, "description": description, "metadata": read_metadata(folder / "model.onnx")}
    facts |= {
        key: records[f"{key}.json"] for key in ("manifest", "metrics", "calibration", "tradeoff", "preprocessing")
    }
    write_text(folder / "README.md", model_card(facts))
    write_sums(folder)
    write_triton_repository(
        folder / "triton", read_package(folder), max_batch=engine["max_batch"], num_threads=TRITON_THREADS
    )
    check_triton_repository(folder / "triton", read_package(folder))
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """List the SHA-256 of every file below ``folder``, as ``sha256sum --check`` reads it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name != SUMS]
    write_text(folder / SUMS, "".join(lines))


def preprocessing(info: DataInfo, dtype: str) -> Json:
    """Return how an image becomes the input, of type ``dtype``, of the network."""
    return {
        "input": {"name": "image", "dtype": dtype, "layout": "NCHW", "color": "RGB", "range": RANGES[dtype]},
        "output": {"name": "logits", "dtype": "float32"},
        "image_size": list(info.image_size),
        "resize": RESIZING[info.resize],
        "normalization": {"inside_the_graph": True, "mean": list(info.mean), "std": list(info.std)},
    }
