"""The package: what a consumer downloads, every fact in it taken from the stages' own records."""

import shutil
from pathlib import Path

from pipeline.data.store import DataInfo
from pipeline.export.onnx import read_metadata
from pipeline.files import Json, read_json, sha256, write_json, write_text
from pipeline.model_card import model_card

SUMS = "SHA256SUMS"
RESIZING = {
    "none": "none: the training images had image_size already",
    "central_square": "scaled to cover image_size (bicubic), then the centre cut out",
}


def write_package(
    folder: Path,
    *,
    name: str,
    description: str,
    onnx: Path,
    calibration: Json,
    info: DataInfo,
    evaluation: Json,
    teacher: Json,
    student: Json,
) -> None:
    """Fill ``folder`` with the ONNX files, labels, preprocessing, calibration, metrics, model card and checksums.

    Args:
        onnx: the folder of the ONNX export.
        calibration: content of calibration.json.
        evaluation: what ``pipeline.evaluation`` reports of ONNX Runtime on the test split.
        teacher, student: reports of the training stages.
    """
    manifest = read_json(onnx / "manifest.json")
    for file in manifest["files"]:
        shutil.copyfile(onnx / file, folder / file)
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "labels.json", {"labels": list(info.classes)})
    write_json(folder / "preprocessing.json", preprocessing(info))
    write_json(folder / "calibration.json", calibration)
    metrics = {"student": evaluation | {"num_parameters": student["num_parameters"]}, "teacher": teacher}
    write_json(folder / "metrics.json", metrics)
    facts = {"name": name, "description": description, "metadata": read_metadata(folder / "model.onnx")}
    facts |= {"manifest": manifest, "metrics": metrics, "calibration": calibration}
    write_text(folder / "README.md", model_card(facts))
    names = sorted(path.name for path in folder.iterdir())
    write_text(folder / SUMS, "".join(f"{sha256(folder / file)}  {file}\n" for file in names))


def preprocessing(info: DataInfo) -> Json:
    """Return how an image becomes the input of the network."""
    return {
        "input": {"name": "image", "dtype": "float32", "layout": "NCHW", "color": "RGB", "range": [0, 1]},
        "output": {"name": "logits", "dtype": "float32"},
        "image_size": list(info.image_size),
        "resize": RESIZING[info.resize],
        "normalization": {"inside_the_graph": True, "mean": list(info.mean), "std": list(info.std)},
    }
