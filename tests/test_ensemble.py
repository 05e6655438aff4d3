"""Figure 5 of the paper: what the members of an ensemble know, against the definitions, image by image."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.core.files import read_csv
from pipeline.distillation.frozen_teacher import load_frozen_teacher
from pipeline.distillation.traced_flows import traced_flows
from pipeline.evaluation.ensemble import COLUMNS, member_figures
from pipeline.networks.saved import load_adapter, load_network
from pipeline.tasks.data import open_data
from workbench.bench import Bench, taught_bench

CPU = torch.device("cpu")
HEADS = {"distill_student.method": "metric_meta", "distill_student.layers.num_heads": 3}
STEPS = {"distill_student.method": "fm_kt", "calibrate_steps.candidates": [1, 3]}


def by_definition(logits: Tensor, labels: Tensor) -> dict[str, list[Tensor]]:
    """Return the figures of each member and of their mean, (B,) each, one image and one member at a time."""
    count = len(logits)
    mean = logits.sum(dim=0) / count
    centred = logits - logits.mean(dim=2, keepdim=True)
    middle = centred.sum(dim=0) / count

    def nll(answer: Tensor) -> Tensor:
        shares = answer.exp() / answer.exp().sum(dim=1, keepdim=True)
        return torch.stack([-share[right].log() for share, right in zip(shares, labels, strict=True)])

    answers = [member.argmax(dim=1) for member in logits]
    pairs = [(answers[i] != answers[j]).double() for i, j in itertools.combinations(range(count), 2)]
    others = [
        sum(((answers[i] != answers[j]).double() for j in range(count) if j != i), logits.new_zeros(len(labels)))
        / max(count - 1, 1)
        for i in range(count)
    ]
    spread = [((member - middle) ** 2).sum(dim=1) for member in centred]
    return {
        "correct": [(answer == labels).double() for answer in (*answers, mean.argmax(dim=1))],
        "nll": [nll(answer) for answer in (*logits, mean)],
        "disagreement": [*others, sum(pairs, logits.new_zeros(len(labels))) / max(len(pairs), 1)],
        "spread": [*spread, sum(spread) / count],
    }


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_figures_of_members_are_those_of_the_definitions(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    logits = 2 * torch.randn(count, 30, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (30,), generator=generator)
    found = member_figures(logits, labels)
    for name, expected in by_definition(logits, labels).items():
        assert torch.allclose(getattr(found, name), torch.stack(expected), atol=1e-12)
    shifted = member_figures(logits + torch.randn(count, 30, 1, generator=generator, dtype=torch.float64), labels)
    assert torch.allclose(shifted.spread, found.spread, atol=1e-12), "a constant added to all logits means nothing"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return taught_bench(tmp_path_factory.mktemp("ensemble"))


def traced(bench: Bench, changes: dict[str, Any]) -> list[dict[str, str]]:
    for command in (bench.distill, bench.trace):
        result = command(changes)
        assert result.exit_code == 0, result.output
    return read_csv(bench.folder / "ensemble.csv")


@pytest.mark.parametrize(("changes", "kind"), [(HEADS, "head"), (STEPS, "step")])
def test_heads_and_steps_are_reported_alone_and_together(bench: Bench, changes: dict[str, Any], kind: str) -> None:
    rows = traced(bench, changes)
    assert [row["member"] for row in rows] == ["1", "2", "3", "mean", "best"]
    assert {row["members"] for row in rows} == {kind}
    network, about = load_network(bench.folder / "student")
    data = open_data(bench.folder / "data", None, about["arguments"])
    teacher = load_frozen_teacher(bench.folder / "teacher", about, CPU)
    flows = traced_flows(network, load_adapter(bench.folder / "student"))
    assert teacher is not None

    @torch.no_grad()
    def said(name: str) -> tuple[Tensor, Tensor, Tensor]:
        split = data.split(name)
        images = torch.from_numpy(split.pixels.copy()).float() / 255
        network.eval()
        logits = network.head.each(network.features(images)) if flows is None else flows.student.step_logits(images, 3)
        return logits.double(), split.targets.labels, teacher(images)[0].double()

    logits, labels, target = said("calib")
    calib = by_definition(logits, labels)
    gaps = (logits - logits.mean(dim=2, keepdim=True)) - (target - target.mean(dim=1, keepdim=True))
    variance = float((gaps**2).sum(dim=2).mean()) / (logits.shape[2] - 1)
    logits, labels, _ = said("test")
    test = by_definition(logits, labels)
    best = max(range(3), key=lambda i: float(calib["correct"][i].mean()))
    for i, row in zip([0, 1, 2, 3, best], rows, strict=True):
        expected = {
            "calib_accuracy": float(calib["correct"][i].mean()),
            "accuracy": float(test["correct"][i].mean()),
            "nll": float(test["nll"][i].mean()),
            "disagreement": float(test["disagreement"][i].mean()),
            "diversity": float(test["spread"][i].mean()) / (2 * variance),
        }
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    if kind == "step":
        likelihood = read_csv(bench.folder / "likelihood.csv")[-1]
        assert likelihood["num_steps"] == "3"
        assert float(rows[3]["diversity"]) == pytest.approx(float(likelihood["diversity"]), rel=1e-4)


def test_without_members_the_table_is_empty_and_without_a_teacher_diversity_has_no_measure(bench: Bench) -> None:
    assert traced(bench, {"distill_student.method": "metric"}) == []
    assert (bench.folder / "ensemble.csv").read_text().strip() == ",".join(COLUMNS)
    rows = traced(bench, {**STEPS, "distill_student.method": "ofm_kt"})
    assert [row["diversity"] for row in rows] == [""] * 5
    assert float(rows[3]["disagreement"]) >= 0
