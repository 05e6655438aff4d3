"""Each benchmark in small: it runs by its own options, and what it reports hangs together. Nothing here is a result."""

import csv
import importlib
import itertools
import json
import math
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional

from benchmarks import chain, detector, fine_tuning, library_step, server_abuse, shared_host, training_step
from benchmarks import meta_encoder_width as meta_encoder_widths
from benchmarks.backbones import main as backbones
from benchmarks.compared_latency import main as compared_latency
from benchmarks.compared_latency import measured_macs
from benchmarks.measuring import host, ratios, spread, take_turns
from benchmarks.meta_encoder_width import main as meta_encoder_width
from benchmarks.meta_encoder_width import rows_of
from benchmarks.photos import FORMATS
from benchmarks.photos import main as photos
from models.detection.building import build_detector
from models.factory import build_classifier
from pipeline.comparison.config import load_comparison
from pipeline.params.schema import load_params
from tests.helpers import ROOT
from workbench.project import write_params
from workbench.serving_helpers import make_package

pytestmark = pytest.mark.slow
SMALL_STEP = {"batch": 8, "images": 16, "blocks": 1, "steps": 1}


def run(command: click.Command, *words: str) -> str:
    """Return what ``command`` prints, run in this process."""
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def result_of(name: str, folder: Path, *words: str, **options: object) -> Any:
    """Return the result that the benchmark ``name`` writes; it names its host, and all its numbers are finite."""
    path = folder / "a folder" / "result.json"
    named = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    run(importlib.import_module(f"benchmarks.{name}").main, *words, *named, "--output", str(path))
    found = json.loads(path.read_text())
    assert found["host"] == host()
    numbers = [*numbers_in({key: value for key, value in found.items() if key != "host"})]
    assert numbers
    assert all(map(math.isfinite, numbers))
    return found


def numbers_in(found: Any) -> Iterator[float]:
    """Yield the numbers in what was read from JSON."""
    if isinstance(found, dict | list):
        for item in found.values() if isinstance(found, dict) else found:
            yield from numbers_in(item)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield found


def check_points(row: Mapping[str, float]) -> None:
    assert 0 < row["p50"] <= row["p95"] <= row["p99"]


def test_turns_go_there_and_back_and_the_first_do_not_count() -> None:
    now, order = [0.0], list[str]()

    def taking(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds + len(order) / 100

    calls = {"a": lambda: taking("a", 1), "b": lambda: taking("b", 2)}
    found = take_turns(calls, turns=2, repeat=2, warmup=1, clock=lambda: now[0])
    assert "".join(order) == "aabbbbaaaabb"
    np.testing.assert_allclose(found["a"], [[1.07, 1.08], [1.09, 1.10]])
    np.testing.assert_allclose(found["b"], [[2.05, 2.06], [2.11, 2.12]])
    np.testing.assert_allclose(ratios(found["b"], found["a"]), [4.11 / 2.15, 4.23 / 2.19])


def test_a_spread_is_median_quartiles_and_range() -> None:
    found = spread("ratio", np.array([4.0, 1.0, 3.0, 2.0, 9.0]))
    assert found == {"ratio": 3.0, "ratio_quartiles": [2.0, 4.0], "ratio_range": [1.0, 9.0]}


def test_the_host_of_a_result_is_described() -> None:
    found = host()
    assert {"cpu", "cpus", "instructions", "system", "python", "versions"} == found.keys()
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["versions"]["numpy"] == np.__version__
    assert str(ROOT) not in json.dumps(found)


def test_a_step_by_the_library_beside_one_by_hand(tmp_path: Path) -> None:
    found = result_of("library_step", tmp_path, num_steps=2, batch=4, blocks=2, steps=1)
    assert found["config"] == {"batch": 4, "blocks": 2, "steps": 1}
    row = found["results"]["2"]
    (low, high), (first, third) = row["ratio_range"], row["ratio_quartiles"]
    assert low <= first <= row["ratio"] <= third <= high
    assert low - 0.01 <= row["library_ms"] / row["by_hand_ms"] <= high + 0.01
    ours, by_hand = library_step.make_steps(1, 4)
    torch.testing.assert_close(ours(), by_hand())


def test_a_step_alone_and_beside_other_work(tmp_path: Path) -> None:
    results = result_of("shared_host", tmp_path, steps=2, turns=1)["results"]
    assert results["alone"]["others"] == 0 < results["beside other work"]["others"]
    for row in results.values():
        assert row["ratio"] == pytest.approx(row["spinning"]["step_ms"] / row["asleep"]["step_ms"], rel=0.02)


def test_turns_on_a_shared_host_go_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that slows down by a tenth from turn to turn favours neither way."""
    order = list[str]()

    def slowing(steps: int, policy: str) -> float:
        order.append(policy)
        return steps * 1.1 ** len(order)

    monkeypatch.setattr(shared_host, "step_ms", slowing)
    results = result_of("shared_host", tmp_path, steps=7, turns=4)["results"]
    assert order == 2 * ["spinning", "asleep", "asleep", "spinning", "spinning", "asleep", "asleep", "spinning"]
    for row in results.values():
        assert row["ratio_range"] == pytest.approx([1 / 1.1, 1.1], abs=0.001)
        assert row["ratio"] == pytest.approx(1, abs=0.01)


def test_a_training_step_beside_a_plain_loop(tmp_path: Path) -> None:
    common = {"teacher": "resnet8", "student": "resnet8", "warmup": 1, "threads": 1, **SMALL_STEP}
    options = {"num_steps": 1, "precision": "fp32", "compile": "never", **common}
    found = result_of("training_step", tmp_path, "--no-memory", **options)
    row = found["results"]["1"]
    assert row["speedup"] == pytest.approx(row["ours"] / row["plain"], rel=0.02)
    assert row["floor"] == pytest.approx(row["ours"] / row["bare"], rel=0.02)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    training_step.peak_memory("ours", found["config"], 1, sender)
    assert 100 < receiver.recv() < 100_000


def test_stored_logits_beside_computed_ones(tmp_path: Path) -> None:
    row = result_of("stored_logits", tmp_path, teacher="resnet8", **SMALL_STEP)["results"]["resnet8"]
    assert row["storing_ms"] > 0
    assert row["ratio"] == pytest.approx(row["computed_ms"] / row["stored_ms"], rel=0.02)
    assert row["ratio_range"] == [row["ratio"]] * 2


def test_steps_in_bf16_beside_those_in_float32(tmp_path: Path) -> None:
    options = {"network": "mobilenet_v3_small", "batch": 2, "side": 32, "turns": 1}
    row = result_of("precision", tmp_path, **options)["results"]["mobilenet_v3_small"]
    assert (row["depthwise"], row["convolutions"]) == (11, 52)
    assert row["ratio"] == pytest.approx(row["bf16_ms"] / row["fp32_ms"], rel=0.02)


def test_the_loader_beside_torchvisions(tmp_path: Path) -> None:
    found = result_of("loader", tmp_path, count=9, width=100, height=75, size=32, batch=4, blocks=1)["results"]
    assert found.keys() == {"pil", "tensor", "ours"}
    assert found["ours"]["speedup"] == 1
    assert found["ours"]["mean_difference"] == 0
    for kind in ("pil", "tensor"):
        assert 0 <= found[kind]["mean_difference"] < 5, "the same crops of the same photographs"
        ratio = found["ours"]["images_per_s"] / found[kind]["images_per_s"]
        assert found[kind]["speedup"] == pytest.approx(ratio, rel=0.02)


def test_the_deployed_graph_beside_the_plain_student(tmp_path: Path) -> None:
    options = {"backbone": "resnet8_x0_5", "steps": 1, "batch": 1, "iterations": 10}
    found = result_of("deployed_graph", tmp_path, "--no-general", "--no-int8", "--no-compiled", **options)
    timings = found["timings"]["1"]
    assert timings.keys() == {"plain student", "K = 1, fp32, collapsed"}
    for timing in timings.values():
        check_points(timing)
        assert timing["ratio"] == pytest.approx(timing["p50"] / timings["plain student"]["p50"])
    assert "10 calls after 10" in found["protocol"]


def test_latencies_of_what_was_compared(tmp_path: Path) -> None:
    name = "cifar10-subset"
    found = result_of("compared_latency", tmp_path, name, "--network", "none", "--network", "dkd", iterations=10)
    networks = found["networks"]
    assert networks.keys() == {"none", "dkd"}
    assert networks["none"] == networks["dkd"], "the same graph is timed once"
    assert {networks["none"]["macs"]} <= measured_macs(name)
    check_points({point.removesuffix("_ms"): value for point, value in networks["none"].items()})
    refused = CliRunner().invoke(compared_latency, [name, "--network", "plane"])
    assert refused.exit_code == 2
    assert (
        "got plane; there are teacher, none, kd, dkd, dist, student + meta (dist), fm_kt (dist), K = 1"
        in refused.output
    )


def test_a_detector_beside_torchvisions(tmp_path: Path) -> None:
    found = result_of("detector", tmp_path, "--no-deployed", detector="fcos", turns=1, batch=2)
    step = found["fcos"]["training_step_ms"]
    assert step["ratio"] == pytest.approx(step["torchvision"] / step["ours"])


def test_a_detector_that_deploys_has_as_many_candidates_as_are_timed() -> None:
    torch.manual_seed(0)
    small = {**detector.TRAINED, "num_convs": 1}
    network = build_detector(num_classes=10, mean=[0.5] * 3, std=[0.25] * 3, detector="fcos", **small).eval()
    image = torch.rand(1, 3, 64, 64)
    post = detector.surest(network, image)
    with torch.inference_mode():
        found = {name: form(image) for name, (form, outputs) in detector.forms(network, post).items()}
        (theirs,) = detector.torchvisions(network, score_thresh=post.score_threshold).eval()(list(image))
    boxes, scores = found["all places"]
    assert boxes.shape == (1, len(network.places), 4)
    assert int((scores > post.score_threshold).sum()) == detector.CANDIDATES
    num, kept, _, _ = found["boxes"]
    assert 0 < int(num) <= kept.shape[1]
    assert abs(int(num) - len(theirs["boxes"])) <= 5, "torchvision looks at each level apart"


def test_a_backbone_is_examined_and_what_is_known_of_others_stays(tmp_path: Path) -> None:
    path = tmp_path / "backbones.json"
    path.write_text('{"another": {"error": "known"}}')
    run(backbones, "resnet8", "--output", str(path))
    found = json.loads(path.read_text())
    assert found["another"] == {"error": "known"}
    assert found["resnet8"]["image_size"] == [96, 96]
    assert found["resnet8"]["num_parameters"] == sum(p.numel() for p in classifier("resnet8", 4).parameters())
    student = found["resnet8"]["as_student"]
    assert math.isfinite(student["loss"])
    assert 0 < student["difference"] < 1e-4
    assert student["form"] == "folded"


def classifier(backbone: str, num_classes: int) -> torch.nn.Module:
    return build_classifier(backbone=backbone, num_classes=num_classes, mean=[0.5] * 3, std=[0.25] * 3)


def test_a_student_at_half_size_is_one_on_averages() -> None:
    torch.manual_seed(0)
    network = classifier(f"python:{ROOT}/benchmarks/half_size.py:resnet8_x0_5", 10).eval()
    plain = classifier("resnet8_x0_5", 10).eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(images), plain(functional.avg_pool2d(images, 2)))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with train and test images of two classes, 32 x 32."""
    folder, random = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split, name, number in itertools.product(("train", "test"), ("a", "b", "c"), range(64)):
        path = folder / split / name / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    return folder


def test_widths_of_meta_encoders(noise: Path, tmp_path: Path) -> None:
    out, arms = str(tmp_path / "out"), ["--arm", "metric", "--arm", "fm_kt conv auto", "--student", "resnet8_x0_5"]
    work = ["--epochs", "1", "--teacher-epochs", "1", "--work", str(tmp_path), "--per-class", "60"]
    train = ["train", "--images", str(noise), "--output", out, *arms, *work]
    assert len(run(meta_encoder_width, *train, "--seed", "0").splitlines()) == 2
    assert run(meta_encoder_width, *train, "--seed", "0") == "", "it goes on where it ended"
    run(meta_encoder_width, "latency", "--output", out, *arms[:2], *arms[-2:], "--iterations", "10")
    run(meta_encoder_width, "table", "--output", out)
    with (tmp_path / "out/table.csv").open(newline="") as file:
        rows = {row["student"].removeprefix("resnet8_x0_5, "): row for row in csv.DictReader(file)}
    assert rows.keys() == {"metric, K = 1", "fm_kt conv auto, K = 1", "fm_kt conv auto, K = 4"}
    plain, flow = rows["metric, K = 1"], rows["fm_kt conv auto, K = 4"]
    assert float(plain["macs_ratio"]) == float(plain["latency_ratio"]) == 1
    assert flow["latency_ratio"] == "", "it was not measured"
    assert 1 < float(flow["macs_ratio"]) <= 1.5
    assert float(flow["gain"]) == pytest.approx(float(flow["accuracy"]) - float(plain["accuracy"]))
    text = (tmp_path / "out/README.md").read_text()
    assert f"| fm_kt conv auto, K = 4 | 16 | {float(flow['accuracy']):.2f} |" in text
    teacher = json.loads((tmp_path / "out/teacher.json").read_text())
    assert f"resnet20, 1 epochs, {teacher['accuracy']:.1f}% on the test images" in text


def test_a_teacher_of_other_images_or_epochs_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_encoder_widths, "fit", lambda *_, **__: None)
    images = [torch.rand(3, 3, 32, 32) for _ in range(2)]
    one, other = (meta_encoder_widths.Images(large, large, torch.zeros(3).long()) for large in images)
    first, about = meta_encoder_widths.teacher_logits(tmp_path, one, other, 1)
    assert torch.equal(meta_encoder_widths.teacher_logits(tmp_path, one, other, 1)[0], first)
    assert not torch.equal(meta_encoder_widths.teacher_logits(tmp_path, other, one, 1)[0], first)
    assert about["epochs"] == 1
    assert meta_encoder_widths.teacher_logits(tmp_path, one, other, 2)[1]["epochs"] == 2


def test_what_is_trained_in_small_makes_no_part_of_the_committed_results(noise: Path) -> None:
    done = CliRunner().invoke(meta_encoder_width, ["train", "--images", str(noise), "--epochs", "1"])
    assert done.exit_code == 2
    assert "give another --output" in done.output


def test_gains_of_meta_encoders_are_paired_by_seed() -> None:
    flow = {1: {"1": 63.0, "4": 64.0}, 2: {"1": 1.0, "4": 2.0}}
    scores = {"metric": {0: {"1": 60.0}, 1: {"1": 62.0}}, "fm_kt conv auto": flow}
    runs = [
        {"arm": arm, "seed": seed, "accuracy": accuracy}
        for arm, seeds in scores.items()
        for seed, accuracy in seeds.items()
    ]
    milliseconds = {"metric, K = 1": 0.5, "fm_kt conv auto, K = 4": 1.0}
    rows = {row.name: row for row in rows_of("resnet8_x0_5", runs, milliseconds)}
    four = rows["resnet8_x0_5, fm_kt conv auto, K = 4"]
    assert four.gains == [2.0]
    assert four.accuracy == [64.0, 2.0]
    assert four.latency_ratio == 2.0
    assert rows["resnet8_x0_5, fm_kt conv auto, K = 1"].latency_ratio is None


def test_photos_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        run(photos, str(tmp_path / name), "--count", "4", "--classes", "2", "--seed", str(seed))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert {path.parent.name for path in files} == {"flower", "temple"}
    assert sorted(path.suffix[1:] for path in files) == sorted(FORMATS[:2] * 2)
    for path in files:
        with Image.open(tmp_path / "one" / path) as image:
            assert 150 <= image.width < 600
        data = [(tmp_path / name / path).read_bytes() for name in ("one", "same", "other")]
        assert data[0] == data[1] != data[2]


def test_fine_tuning_is_a_valid_comparison_of_classes_apart(noise: Path, tmp_path: Path) -> None:
    classes = fine_tuning.link_images(noise, tmp_path)
    assert classes == {"task": ["a", "c"], "other": ["b"]}
    assert {path.name for path in (tmp_path / "task/train/a").iterdir()} == {f"{n:02}.png" for n in range(64)}
    values = fine_tuning.changes(tmp_path / "task", backbone="resnet8_x0_5", epochs=2)
    fine_tuning.write_params(tmp_path / "params.yaml", values)
    params = load_params(tmp_path / "params.yaml")
    assert params.distill_student.training.epochs == 2
    assert params.prepare_data.root == str(tmp_path / "task")
    path, weights = tmp_path / "comparison.yaml", tmp_path / "model.safetensors"
    fine_tuning.write_comparison(path, values, weights, epochs=2, seeds=2)
    comparison = load_comparison(path)
    assert comparison.seeds == [0, 1]
    assert comparison.methods[fine_tuning.LONGER] == {"distill_student.training.epochs": 6}
    assert comparison.methods[fine_tuning.STARTED] == {"distill_student.weights": str(weights)}


def test_weights_are_trained_once_for_the_same_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def training(words: list[str]) -> float:
        place = Path(words[words.index("--out") + 1])
        place.mkdir()
        (place.parent / "student.json").write_text('{"val_accuracy": 0.5}')
        trained.append(place)
        return 1.0

    monkeypatch.setattr(fine_tuning, "run", training)
    for epochs in (2, 2, 3):
        values = fine_tuning.changes(tmp_path, backbone="resnet8_x0_5", epochs=epochs)
        path, about = fine_tuning.train_weights(tmp_path, values)
        assert path.parent == trained[-1]
        assert about == {"val_accuracy": 0.5, "seconds": 1.0}
    assert [place.name for place in trained] == ["data", "student"] * 2


def test_fine_tuning_reports_percent_with_their_spread(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.5, 0.52)):
        folder = tmp_path / f"runs/trials/from-given-weights-{seed}"
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps({"accuracy": accuracy}))
        (folder / "done.json").write_text('{"seconds": 3}')
    found = fine_tuning.row(tmp_path, fine_tuning.STARTED, 2)
    assert found["test_accuracy_percent"] == [50.0, 52.0]
    assert (found["mean"], found["standard_deviation"], found["seconds"]) == (51.0, 1.41, [3, 3])


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("served") / "package")


def test_a_server_beside_its_session_and_under_load(package: Path, tmp_path: Path) -> None:
    options = {"blocks": 1, "requests": 20, "clients": 2, "malformed": 10, "workers": 1, "package": package}
    found = result_of("serving", tmp_path, "--picture", "1", "64", "48", **options)["results"]
    assert found["load"]["right"] == 20
    assert found["load"]["wrong"] == found["load"]["lost"] == found["fuzz"]["bad"] == found["exit code"] == 0
    assert found["requests"] == {"answered": 20, "counted": 20}
    assert sum(found["fuzz"]["statuses"].values()) == 10
    for size in ("1", "8"):
        ways = found["latency"][size]
        assert ways.keys() == {"session", "http, 1 worker", "grpc, 1 worker", "http json"}
        for row in ways.values():
            check_points(row)
            assert row["ratio"] == pytest.approx(row["p50"] / ways["session"]["p50"], abs=1e-3, rel=0.02)
    pictures = found["pictures"]["1 of 64 x 48"]
    assert pictures["http, decoded by client"]["ratio"] == pictures["grpc, decoded by client"]["ratio"] == 1
    sent = sorted(pictures[f"{transport}, BYTES"]["ratio"] for transport in ("http", "grpc"))
    assert found["files"]["64 x 48"]["ratio_range"] == sent


def test_a_server_under_abuse(package: Path, tmp_path: Path) -> None:
    options = {"seconds": 0.3, "requests": 5, "only": "silent connections", "package": package}
    found = result_of("server_abuse", tmp_path, **options)
    assert found["requests answered"] == 10
    assert found["exit code"] == 0
    assert found["abuses"]["silent connections"] >= 1
    for moment in ("quiet", "abused"):
        for row in found[moment].values():
            assert row["failed"] == 0
            assert row["p50"] <= row["p99"] <= row["max"]
    assert found["MiB"]["at rest"] <= found["MiB"]["most"]


def test_the_largest_json_is_as_large_as_is_allowed() -> None:
    """Else the server refuses it at once, and is not abused."""
    body = server_abuse.json_of(10_000)
    assert 9_980 < len(body) <= 10_000
    assert json.loads(body)["inputs"][0]["name"] == "image"


MAKEFILE = """
install:
\t@mkdir -p .venv/bin && ln -s {python} .venv/bin/python && echo 123 > "$$PIP_CACHE_DIR/file" && touch .venv/.installed
repro: .venv/.installed
\t@python -m stages repair
\t@python -m stages.train && python -m stages.evaluate && python -m stages.evaluate
.venv/.installed: Makefile
\t@echo must not be installed again && exit 2
"""
STAGES = {
    "__init__": "",
    "__main__": "import pathlib, sys\nsys.argv[1] == 'preset' and pathlib.Path('params.yaml').write_text(sys.argv[2])\n"
    "sys.argv[1] == 'summary' and print('what ships')",
    "train": "import pathlib\npathlib.Path('reports/metrics.json').write_text('{\"accuracy\": 0.5}')",
    "evaluate": "sum(range(1_000_000))",
}
"""A chain of two stages, one of which runs twice."""


def test_a_chain_is_timed_from_a_fresh_clone_to_nothing_to_do(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in ("stages", "reports", "artifacts/tradeoff"):
        (repository / name).mkdir(parents=True)
    (repository / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (repository / "reports/.gitkeep").touch()
    (repository / "artifacts/tradeoff/tradeoff.json").write_text("[]")
    for name, code in STAGES.items():
        (repository / "stages" / f"{name}.py").write_text(code)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.org"]
    for words in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *words], cwd=repository, check=True)
    options = {"repository": repository, "first_run": tmp_path / "run"}
    found = result_of("chain", tmp_path, "digits", "--install", **options)
    assert found["install"]["download_bytes"] == 4
    row = found["presets"]["digits"]
    assert (row["first"]["n"], row["again"]["n"], row["metrics"]) == (1, 3, {"accuracy": 0.5})
    assert row["stages"].keys() == {"train", "evaluate"}
    of_stages = sum(spent["seconds"] for spent in row["stages"].values())
    assert 0 < of_stages < row["first"]["seconds"]
    assert row["first"]["cpu_seconds"] >= sum(spent["cpu_seconds"] for spent in row["stages"].values())
    assert found["from_nothing"]["seconds"] == pytest.approx(found["install"]["seconds"] + row["first"]["seconds"])
    assert (tmp_path / "run/summary.txt").read_text() == "what ships\n"
    assert (tmp_path / "run/tradeoff.json").read_text() == "[]"


@pytest.mark.parametrize("source", ["imagefolder", "digits"])
def test_the_images_of_a_chain_go_into_its_parameters_unless_it_brings_its_own(source: str, tmp_path: Path) -> None:
    path = write_params(tmp_path / "params.yaml", {"prepare_data.source": source})
    chain.set_images(path, tmp_path / "photos")
    assert (load_params(path).prepare_data.root == str(tmp_path / "photos")) == (source == "imagefolder")


def test_every_benchmark_runs_here_or_beside_its_figures() -> None:
    """Those that draw figures are run by tests/test_figures.py."""
    named = re.findall(r'result_of\("(\w+)"|from benchmarks\.(\w+) import', Path(__file__).read_text())
    here = {name for pair in named for name in pair} | {"fine_tuning"}
    commands = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "\ndef main(" in path.read_text()}
    assert len(commands) > 12
    assert commands - here == {"figures"}
