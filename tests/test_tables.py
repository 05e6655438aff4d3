"""Tables of choices: what a faulty entry is told, and what an unknown name is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from models.backbones.backbone import Backbone
from models.backbones.sources import BACKBONE_SOURCES
from models.core.table import Entry, Table, UnknownNameError
from models.flow_paths.base import Schedule
from models.meta_encoders import META_ENCODERS
from models.schedules import SCHEDULES
from pipeline.core.settings import Section
from pipeline.data.sources.table import SourceEntry
from pipeline.distillation.criteria import CRITERIA, CriterionEntry
from pipeline.distillation.method import Method
from pipeline.distillation.methods import METHODS, MethodEntry
from pipeline.evaluation.runtimes import RuntimeEntry
from pipeline.export.precisions import PrecisionEntry
from pipeline.networks.saved import NETWORK_KINDS


def toy(**changes: Any) -> Entry:
    return Entry(**{"name": "top", "description": "spins", "load": dict, **changes})


def criterion(**changes: Any) -> Entry:
    return CriterionEntry(**{"name": "top", "description": "spins", "load": dict, "applies_to": ("logits",), **changes})


def method(**changes: Any) -> Entry:
    return MethodEntry(**{"name": "top", "description": "spins", "load": dict, **changes})


def precision(**changes: Any) -> Entry:
    return PrecisionEntry(**{"name": "top", "description": "spins", "load": dict, **changes})


def runtime(**changes: Any) -> Entry:
    return RuntimeEntry(**{"name": "top", "description": "spins", "load": dict, **changes})


def source(**changes: Any) -> Entry:
    return SourceEntry(**{"name": "top", "description": "spins", "load": dict, **changes})


class NoDefault(Section):
    """Settings that nobody can leave out."""

    exponent: float


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (toy(name=""), "has no name"),
        (toy(description=""), "has no description"),
        (toy(load=None), "has no loader .got None.; give a function that imports it and returns it"),
        (toy(load="models.toys.top"), "has no loader .got 'models.toys.top'.; give a function"),
        (toy(description="", load=None), "has no description; has no loader"),
        (criterion(applies_to=("weights",)), "applies to .*weights.*; give a tuple of logits, features"),
        (criterion(applies_to=()), "applies to nothing; give a tuple of logits, features"),
        (criterion(load=None), "has no loader"),
        (Entry(name="top", description="spins"), "has no loader .got nothing."),
        (CriterionEntry(name="top", description="spins", applies_to=("logits",)), "has no loader .got nothing."),  # type: ignore[call-arg]
        (toy(name="a b"), "has a name of other characters"),
        (toy(name=3), "has a name of other characters"),
        (criterion(applies_to=None), "applies to nothing; give a tuple of logits, features"),
        (criterion(settings="x"), "has the settings 'x'; give a class derived from Section"),
        (criterion(settings=NoDefault), "has settings without a default: exponent"),
        (precision(gate="x"), "has the gate 'x'; give a Gate"),
        (runtime(artifact=None), "has the artifact None; give a folder in the project"),
        (source(fingerprint="x"), "has the fingerprint 'x'; give a function"),
        (method(transfers=("logits", "weights")), "transfers .*weights.*; give a tuple of logits, features"),
        (method(transfers=()), "transfers nothing; give a tuple of logits, features"),
        (method(description=""), "has no description"),
    ],
)
def test_a_faulty_entry_names_its_table_itself_and_the_fault(entry: Entry, fault: str) -> None:
    with pytest.raises(ValueError, match=rf"entry {entry.name!r} of the toy table: {fault}"):
        Table("toy", toy(name="another"), entry)


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="entry 'top' of the toy table: stands twice in the table"):
        Table("toy", toy(), toy(name="yo-yo"), toy(description="another"))


def test_a_table_is_a_mapping_in_the_order_in_which_it_was_written() -> None:
    entries = [toy(), toy(name="ball", description="bounces"), toy(name="kite")]
    table = Table("toy", *entries)
    assert list(table) == ["top", "ball", "kite"]
    assert list(table.values()) == entries
    assert "ball" in table
    assert "bell" not in table
    assert table.get("bell") is None
    assert table.markdown().splitlines() == [
        "| toy | |",
        "|---|---|",
        "| `top` | spins |",
        "| `ball` | bounces |",
        "| `kite` | spins |",
    ]


@pytest.mark.parametrize(
    ("name", "hint"), [("bell", "did you mean ball? "), ("topp", "did you mean top? "), ("doll", ""), ("", "")]
)
def test_an_unknown_name_has_the_nearest_names_and_all_known_ones(name: str, hint: str) -> None:
    table = Table("toy", toy(), toy(name="ball"), toy(name="kite"))
    with pytest.raises(UnknownNameError) as error:
        table[name]
    assert str(error.value) == f"unknown toy {name!r}; {hint}known: top, ball, kite"
    assert isinstance(error.value, ValueError)


def test_every_entry_loads_what_its_table_says() -> None:
    for schedule in SCHEDULES.values():
        assert isinstance(schedule.load(), Schedule)
    for meta_encoder in META_ENCODERS.values():
        assert isinstance(meta_encoder.load()(4), nn.Sequential)
    for loss in CRITERIA.values():
        assert callable(loss.load())
        assert loss.settings is None or loss.settings()
    for way in METHODS.values():
        assert isinstance(way.load(), Method)
    for kind in NETWORK_KINDS.values():
        assert callable(kind.load())
    for source in BACKBONE_SOURCES.values():
        build: Callable[..., tuple[Backbone, nn.Module]] = source.load()
        if source.names is not None:
            with torch.device("meta"):
                assert isinstance(build(next(iter(source.names())), 3, None)[0], Backbone)
