"""Checkpoints: whole or not at all, of this run and no other."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.errors import BusyError
from pipeline.training.checkpoints import Checkpoints, open_checkpoints
from stages.common import stage_options


def state(value: float) -> dict[str, Any]:
    return {"rows": [{"epoch": 1, "loss": value}], "step": {"weight": torch.full((3,), value)}}


def saved(folder: Path, count: int) -> Checkpoints:
    checkpoints = Checkpoints(folder)
    for epoch in range(1, count + 1):
        checkpoints.save(epoch, state(epoch))
    return checkpoints


def test_the_last_two_states_are_kept_and_the_last_is_returned(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000011.checkpoint", "epoch-000012.checkpoint"]
    latest = checkpoints.latest()
    assert latest is not None
    assert latest["rows"] == [{"epoch": 1, "loss": 12}]
    assert torch.equal(latest["step"]["weight"], torch.full((3,), 12.0))
    checkpoints.clear()
    assert checkpoints.latest() is None
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit", "no checkpoint"])
def test_a_damaged_state_is_named_and_the_one_before_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 2)
    path = tmp_path / "epoch-000002.checkpoint"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {"empty": b"", "truncated": data[:-10], "one bit": data, "no checkpoint": b"x" * 100}
    path.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        latest = checkpoints.latest()
    assert latest is not None
    assert latest["rows"][0]["loss"] == 1
    assert f"{path}: damaged checkpoint" in caplog.text
    (tmp_path / "epoch-000001.checkpoint").write_bytes(b"")
    assert checkpoints.latest() is None


def test_damaged_states_do_not_push_out_those_that_are_whole(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 10)
    for path in tmp_path.glob("epoch-*"):
        path.write_bytes(b"")
    assert checkpoints.latest() is None
    for epoch in (1, 2):
        checkpoints.save(epoch, {"epoch": epoch})
        assert checkpoints.latest() == {"epoch": epoch}


def test_a_changed_fact_input_or_digest_of_code_is_another_run(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("{}")
    folders = []

    def note(facts: dict[str, Any], stage: str = "train_teacher", code: str = "a") -> None:
        with open_checkpoints(stage, facts, [data], code=code) as checkpoints:
            folders.append(checkpoints.folder)

    note({"epochs": 3})
    note({"epochs": 3})
    note({"epochs": 4})
    note({"epochs": 3}, "distill_student")
    data.write_text("{ }")
    note({"epochs": 3})
    data.write_text("{}")
    note({"epochs": 3}, code="b")
    assert folders[0] == folders[1]
    assert len(set(folders)) == 5
    assert all(folder.is_relative_to(tmp_path / ".checkpoints") for folder in folders)


def test_under_dvc_the_last_state_stays_until_a_stage_reads_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC puts copies in the place of outputs, which are on the disk when a later stage has seen to it."""
    monkeypatch.setenv("DVC_STAGE", "train_teacher")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    data = tmp_path / "data.json"
    data.write_text("{}")
    for seed, ends in ((0, True), (1, False)):
        with open_checkpoints("train_teacher", {"seed": seed}, [data], code="a") as checkpoints:
            checkpoints.save(6, state(seed))
            if ends:
                checkpoints.clear()

    def left() -> int:
        return len(list(tmp_path.glob(".checkpoints/*/*/epoch-*")))

    assert left() == 2
    for stage, kept in (("prepare_data", 2), ("distill_student", 1)):
        ran = []

        @stage_options(stage)
        def read(ran: list[str] = ran, stage: str = stage, **_: object) -> None:
            ran.append(stage)

        read(params_path=tmp_path)
        assert (ran, left()) == ([stage], kept)
    with open_checkpoints("train_teacher", {"seed": 1}, [data], code="a") as checkpoints:
        assert checkpoints.latest() is not None, "an interrupted one stays"


def test_a_second_trainer_of_the_same_run_is_turned_away(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("{}")
    with open_checkpoints("train_teacher", {"seed": 0}, [data], code="a"):
        with (
            pytest.raises(BusyError, match="another run is still writing it"),
            open_checkpoints("train_teacher", {"seed": 0}, [data], code="a"),
        ):
            pass
        with open_checkpoints("train_teacher", {"seed": 1}, [data], code="a"):
            pass
