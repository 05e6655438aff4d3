"""Every variant of the method through the stages: distilled, calibrated, traced, exported, evaluated, packaged."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner

from stages.commands.verify import verify
from workbench.bench import Bench, taught_bench

pytestmark = pytest.mark.slow

FEATURES = {"distill_student.transfer": "features", "distill_student.loss": "pkd"}
EVERY_PRECISION = "fm_kt, every precision, images as bytes"
VARIANTS: dict[str, dict[str, Any]] = {
    "fm_kt, vp, transformer": {
        "distill_student.flow.schedule": "vp",
        "distill_student.flow.meta_encoder": "transformer",
        "calibrate_steps.candidates": [2],
    },
    "fm_kt, ve, drawn steps, decoupled pairs": {
        "distill_student.flow.schedule": "ve",
        "distill_student.flow.meta_encoder": "conv_mobile",
        "distill_student.flow.num_steps": [1, 2, 4],
        "distill_student.flow.num_steps_warmup": 1,
        "distill_student.flow.pair_ratio": 0.5,
        "calibrate_steps.candidates": [2],
    },
    EVERY_PRECISION: {
        "export_onnx.precisions": ["fp32", "fp16", "int8-cpu", "int8-trt"],
        "export_onnx.input": "uint8",
        "calibrate_steps.candidates": [2],
        "export_onnx.gates.int8-trt.min_agreement": 0.8,
        "export_onnx.gates.int8-trt.max_drop": 0.1,
        "distill_student.training.epochs": 6,
    },
    "fm_kt on features": FEATURES
    | {
        "distill_student.backbone": "shufflenet_v2_x0_5",
        "distill_student.feature_pairs": [[3, 2], [4, 3]],
        "distill_student.logit_loss.weight": 0.5,
        "calibrate_steps.candidates": [2],
    },
    "fm_kt on features and logits": FEATURES
    | {
        "distill_student.transfer": "features_and_logits",
        "distill_student.logit_loss.weight": 1.0,
        "distill_student.logit_loss.criterion": "dist",
        "calibrate_steps.candidates": [2],
    },
    "fm_kt_theta": {"distill_student.method": "fm_kt_theta", "distill_student.loss": "dkd"},
    "ofm_kt": {"distill_student.method": "ofm_kt"},
    "none": {"distill_student.method": "none"},
    "metric": {"distill_student.method": "metric", "distill_student.loss": "mse"},
    "metric on features": FEATURES | {"distill_student.method": "metric"},
    "metric_meta, three heads": {
        "distill_student.method": "metric_meta",
        "distill_student.layers.num_heads": 3,
        "distill_student.allow_larger": True,
    },
    "metric_meta": {"distill_student.method": "metric_meta", "distill_student.flow.meta_encoder": "mlp"},
}
PACKAGED = [EVERY_PRECISION, "fm_kt on features and logits", "none"]
SAMPLED = [name for name in VARIANTS if "kt" in name and "theta" not in name]
FLOWS = {"fm_kt on features": 2, "fm_kt on features and logits": 3}
"""The number of those that have several."""
FORMS = {EVERY_PRECISION: "collapsed", **dict.fromkeys([*FLOWS, "ofm_kt"], "folded")}
"""The smallest form of those whose flow folds."""
TIED = {
    "distill_student.theta.target": "both",
    "distill_student.theta.flow_weight_end": 0.1,
    "calibrate_steps.tolerance": 1.0,
}
Graph = tuple[list[Any], dict[Any, int]]
"""The nodes of a graph, and how many weights of each shape and type it has."""


class Variants:
    """Brings variants to their export on one bench, which holds the last of them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.graphs: dict[str, Graph] = {}

    def export(self, name: str) -> None:
        for command in (self.bench.distill, self.bench.calibrate, self.bench.trace, self.bench.export):
            result = command(changes_of(name))
            assert result.exit_code == 0, result.output
        self.graphs[name] = read_graph(self.bench.folder / "onnx/model.onnx")

    def graph(self, name: str) -> Graph:
        if name not in self.graphs:
            self.export(name)
        return self.graphs[name]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Variants:
    return Variants(taught_bench(tmp_path_factory.mktemp("variants")))


def changes_of(name: str) -> dict[str, Any]:
    return {"calibrate_steps.candidates": [3], "export_onnx.batch_sizes": [1, 3], **VARIANTS[name]}


def read_graph(path: Path) -> Graph:
    graph = onnx.load(path).graph
    nodes = [(node.op_type, list(node.input), list(node.output), str(node.attribute)) for node in graph.node]
    return nodes, Counter((tuple(item.dims), item.data_type) for item in graph.initializer)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_goes_through_every_stage(name: str, variants: Variants) -> None:
    variants.export(name)
    bench, changes, takes_steps = variants.bench, changes_of(name), name in SAMPLED
    (num_steps,) = changes["calibrate_steps.candidates"]
    assert bench.evaluate("onnx", "onnx", changes).exit_code == 0
    assert bench.json("calibration/calibration.json")["num_steps"] == (num_steps if takes_steps else None), (
        "K is not the N of training"
    )
    assert bench.json("onnx.json")["parity"]["agreement"] == 1.0
    assert bench.json("onnx/manifest.json")["files"]["model.onnx"]["form"] == FORMS.get(name, "general")
    if name in PACKAGED:
        assert bench.measure(changes).exit_code == 0
        assert bench.evaluate("torch", "student", changes).exit_code == 0
        report = bench.report(changes)
        assert report.exit_code == 0, report.output
        assert bench.package(changes).exit_code == 0
        points = bench.json("tradeoff/tradeoff.json")["points"]
        assert [point["num_steps"] for point in points] == [num_steps if takes_steps else None]
        files = bench.json("onnx/manifest.json")["files"].values()
        shipped = {entry["precision"]: entry["bytes"] for entry in files}
        measured = {point["precision"]: point["bytes"] for point in points}
        assert measured.items() <= shipped.items(), "the files that ship"
        verified = CliRunner().invoke(verify, ["--package", str(bench.folder / "package")])
        assert verified.exit_code == 0, verified.output
    flows = len(rows(bench.folder / "flow_by_num_steps.csv"))
    assert flows == FLOWS.get(name, int("kt" in name))
    assert len(rows(bench.folder / "steps.csv")) == num_steps * flows
    assert (bench.folder / "student/adapter").exists() == ("features" in name or "theta" in name)
    if takes_steps:
        deployed = rows(bench.folder / "flow_by_num_steps.csv")[-1]["accuracy"]
        assert float(deployed) == pytest.approx(bench.json("onnx.json")["accuracy"], abs=1e-5)


def test_theta_deploys_a_graph_with_exactly_the_nodes_of_the_plain_student(variants: Variants) -> None:
    assert variants.graph("fm_kt_theta") == variants.graph("none")


def test_a_tied_student_deploys_without_a_step_as_the_plain_one_or_with_any_number(variants: Variants) -> None:
    plain, bench = variants.graph("none"), variants.bench
    tied = {"distill_student.method": "fm_kt_theta", "distill_student.theta.tied": True, **TIED}
    changes = {**changes_of("fm_kt_theta"), **tied}
    for command in (bench.distill, bench.calibrate, bench.trace, bench.export, bench.measure):
        result = command(changes)
        assert result.exit_code == 0, result.output
    calibration = bench.json("calibration/calibration.json")
    assert [point["num_steps"] for point in calibration["curve"]] == [0, 3]
    assert calibration["num_steps"] == 0, "its score is within the tolerance, and it costs nothing"
    assert calibration["curve"][0]["macs"] == calibration["plain"]["macs"] < calibration["curve"][1]["macs"]
    assert read_graph(bench.folder / "onnx/model.onnx") == plain
    points = bench.json("tradeoff/tradeoff.json")["points"]
    assert [point["num_steps"] for point in points] == [0, 3]
    for runtime, artifact in (("onnx", "onnx"), ("torch", "student")):
        assert bench.evaluate(runtime, artifact, changes).exit_code == 0
    assert bench.json("onnx.json")["accuracy"] == bench.json("torch.json")["accuracy"]
    traced = rows(bench.folder / "flow_by_num_steps.csv")
    assert [row["num_steps"] for row in traced] == ["0", "3"]
    assert float(traced[0]["accuracy"]) == pytest.approx(bench.json("torch.json")["accuracy"], abs=1e-6)
    report = bench.report(changes)
    assert report.exit_code == 0, report.output
    assert [row["num_steps"] for row in rows(bench.folder / "score_by_steps.csv") if row["test"]] == ["0", "3"]
    assert bench.package(changes).exit_code == 0
    assert "Sampling steps: 0 (" in (bench.folder / "package/README.md").read_text()
    verified = CliRunner().invoke(verify, ["--package", str(bench.folder / "package")])
    assert verified.exit_code == 0, verified.output
