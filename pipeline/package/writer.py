"""The package: what a consumer downloads, every fact in it taken from the stages' own records."""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from pipeline.core.files import Json, read_csv, sha256, write_json, write_text
from pipeline.core.likelihood_line import LIKELIHOOD
from pipeline.core.records import (
    CalibrationRecord,
    DescribedDataRecord,
    EvaluationRecord,
    ManifestRecord,
    ProbedPackage,
    StudentRecord,
    TeacherRecord,
    TradeoffRecord,
    collect_warnings,
    read_record,
)
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST, SAMPLES
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.export.tensorrt.plan import EngineSettings
from pipeline.package.clients import write_clients
from pipeline.package.model_card import Facts, model_card
from pipeline.package.provenance import Commit, describe
from pipeline.package.reader import Package
from pipeline.package.requirements import REQUIREMENTS
from pipeline.package.schema import (
    CATEGORY_IDS_KEY,
    CLASS_NAMES_FILE,
    CLASS_NAMES_KEY,
    ENGINE_SETTINGS,
    PREPROCESSING_FILE,
)
from pipeline.package.settings import PackageSettings
from pipeline.package.sums import SIGNATURE, SUMS
from pipeline.package.triton_config import check_triton_configs, write_triton_configs
from pipeline.package.triton_repository import TRITON
from pipeline.runtimes.engine_file import read_signature
from pipeline.tasks.base import Task
from pipeline.tasks.table import exported_task

TRITON_THREADS = 1
PICTURES = ("tradeoff.svg", "confusion.png", "predictions.jpg")
"""What the model card shows beside its tables."""
RESIZING = {
    "none": "none: the training images had image_size already",
    "central_square": "scaled to cover image_size (bicubic), then the centre cut out",
}
RANGES = {"float32": [0, 1], "uint8": [0, 255]}


@dataclass(frozen=True)
class Records:
    """What the stages left, from which a package is put together; the names are those of the stage's options."""

    onnx: Path
    """Folder of the ONNX export."""
    calibration: Path
    """Folder of calibration.json."""
    data: Path
    """Folder of data.json."""
    tradeoff: Path
    """Folder of tradeoff.json."""
    report: Path
    """Folder of the report, in which ``card`` holds what the model card shows."""
    evaluation: Path
    """JSON scores of ONNX Runtime on the test split."""
    teacher: Path
    """JSON report of the teacher."""
    student: Path
    """JSON report of the student."""
    environment: Path
    """JSON facts of the probe."""


def write_package(
    folder: Path, settings: PackageSettings, engine: EngineSettings, records: Records, commit: Commit
) -> None:
    """Fill ``folder`` with all that a consumer needs: ONNX files, class names, samples, records, model card.

    Args:
        engine: how an engine is built from the package.
        commit: of the code and parameters that it is made by.

    Raises:
        UserError: a record is missing or damaged.
        GateError: a configuration for Triton does not fit its ONNX file.
    """
    data = read_record(records.data / "data.json", DescribedDataRecord)
    student = read_record(records.student, StudentRecord)
    calibration = read_record(records.calibration / "calibration.json", CalibrationRecord)
    tradeoff = read_record(records.tradeoff / "tradeoff.json", TradeoffRecord)
    manifest = read_record(records.onnx / MANIFEST, ManifestRecord)
    task, metadata = exported_task(manifest), read_metadata(records.onnx / PRECISIONS[FP32].file_name)
    scores = read_record(records.evaluation, EvaluationRecord, task.primary, task.primary_error)
    scores |= {name: student[name] for name in ("num_parameters", "started_from") if name in student}
    metrics: Json = {"student": scores, "teacher": read_record(records.teacher, TeacherRecord)}
    warnings = collect_warnings(metrics["teacher"], student, manifest, scores, tradeoff)
    facts = read_record(records.environment, ProbedPackage)["inputs"]["package"]
    about = describe(settings, facts, data, commit)
    manifest |= with_precisions(manifest, settings.precisions)
    manifest |= {"name": about["name"], "about": about, "warnings": warnings}
    contents = {
        MANIFEST: manifest,
        CLASS_NAMES_FILE: class_table(data),
        PREPROCESSING_FILE: preprocessing(task, read_signature(manifest["signature"]), data, metadata),
        "calibration.json": calibration,
        "metrics.json": metrics,
        "tradeoff.json": tradeoff,
        ENGINE_SETTINGS: asdict(engine),
    }
    for file, content in contents.items():
        write_json(folder / file, content)
    for file in (*manifest["files"], SAMPLES):
        shutil.copyfile(records.onnx / file, folder / file)
    for file in PICTURES:
        shutil.copyfile(records.report / "card" / file, folder / file)
    write_sums(folder)
    package = Package.open(folder)
    shown = Facts(
        settings.description,
        metadata,
        metrics["student"],
        metrics["teacher"],
        calibration,
        tradeoff,
        read_csv(records.report / "card/classes.csv"),
        read_csv(records.report / "card" / LIKELIHOOD),
        is_signed=settings.signing_key is not None,
    )
    write_text(folder / "README.md", model_card(package, shown))
    write_clients(package)
    for file, lines in REQUIREMENTS.items():
        write_text(folder / file, lines)
    write_triton_configs(folder / TRITON, package, max_batch=engine.max_batch, num_threads=TRITON_THREADS)
    check_triton_configs(folder / TRITON, package)
    write_sums(folder)


def with_precisions(manifest: Json, precisions: Collection[str] | None) -> Json:
    """Return what the manifest of an export says of its files, of those of ``precisions`` alone; None: of all."""
    if precisions is None:
        return {}
    kept = {FP32, *precisions}
    entries = manifest["files"].items()
    why = "package.precisions does not name it"
    passed_over = {entry["precision"]: why for _, entry in entries if entry["precision"] not in kept}
    return {
        "files": {name: entry for name, entry in entries if entry["precision"] in kept},
        "gates": {name: gate for name, gate in manifest["gates"].items() if name in kept},
        "left_out": manifest.get("left_out", {}) | passed_over,
    }


def write_sums(folder: Path) -> None:
    """List the SHA-256 of every file below ``folder``, as ``sha256sum --check`` reads it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256(folder / name)}  {name}\n" for name in names if name not in {SUMS, SIGNATURE}]
    write_text(folder / SUMS, "".join(lines))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata inside the ONNX file ``path``."""
    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


def class_table(data: Json) -> Json:
    """Return what can be seen, from the content ``data`` of data.json: names, and ids where the user's files have them.

    A network's answers give a class by its place in these lists, from 0 on.
    """
    ids = data.get("category_ids")
    return {CLASS_NAMES_KEY: data["classes"]} | ({} if ids is None else {CATEGORY_IDS_KEY: ids})


def preprocessing(task: Task, signature: Signature, data: Json, metadata: Mapping[str, str]) -> Json:
    """Return how an image becomes the network's input, and what comes out.

    Args:
        data: content of data.json.
        metadata: that of the fp32 file, which says how the network normalises.
    """
    taken = signature.input
    mean, std = (json.loads(metadata[name]) for name in ("mean", "std"))
    described: Json = {
        "input": {
            "name": taken.name,
            "dtype": taken.dtype,
            "layout": "NCHW",
            "color": "RGB",
            "range": RANGES[taken.dtype],
        },
        "outputs": [output.describe() for output in signature.outputs],
        "image_size": list(taken.shape[1:]),
        "normalization": {"inside_the_graph": True, "mean": mean, "std": std},
    }
    described |= task.preprocessing() or {"resize": RESIZING[data["resize"]]}
    if len(signature.outputs) == 1:  # as packages of version 0.1 have it
        (output,) = signature.outputs
        described["output"] = {"name": output.name, "dtype": output.dtype}
    return described
