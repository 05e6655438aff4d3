"""The frame of the attacks, and a short form of each campaign; ``make attack`` runs the long one."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from attacks import __main__ as command
from attacks.campaign import Campaign, Outcome, case_generator
from attacks.chains import FINISHED, Chain
from attacks.ledger import Ledger
from attacks.table import CAMPAIGNS
from attacks.workers import outcomes
from tests.helpers import ROOT
from tests.toy_attacks import WAYS

TOY = Campaign("a toy", cases=24, short=6, seconds=2, opened="tests.toy_attacks:opened")
KINDS = [case_generator("toy", 0, case).choice(WAYS) for case in range(TOY.cases)]


def tried(cases: range) -> dict[int, Outcome]:
    return dict(outcomes("toy", TOY, cases, seed=0, jobs=2, until=lambda: False))


def test_every_case_has_an_outcome_and_another_process_takes_over_from_one_that_hangs_or_dies() -> None:
    found = tried(range(12))
    assert set(found) == set(range(12))
    assert {"hangs", "dies", "raises", "wrong", "held"} <= set(KINDS[:12])
    words = {
        "hangs": "no end after 2 s",
        "dies": "exit code -9",
        "raises": "ZeroDivisionError: by a case",
        "wrong": "why",
    }
    for case, outcome in found.items():
        kind = KINDS[case]
        assert outcome.verdict == ("broke" if kind in words else kind)
        assert words.get(kind, "why") in outcome.detail


def test_a_run_goes_on_where_it_was_and_begins_anew_for_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = [case for case, kind in enumerate(KINDS) if kind in {"held", "harmless", "wrong"}]
    monkeypatch.setattr(command, "CAMPAIGNS", {"toy": TOY})
    monkeypatch.setattr(command, "code_version", lambda: "one")
    ledger = Ledger(tmp_path / "toy-0.jsonl", "one")
    for case in range(TOY.cases):
        if case not in quiet:
            ledger.add(case, Outcome("known", "held"))
    with ledger.path.open("a") as file:
        file.write('[3, "half a li')
    done = CliRunner().invoke(command.main, ["--ledgers", str(tmp_path)])
    counts = Counter(KINDS[case] for case in quiet)
    assert done.exit_code == 1
    assert f"{TOY.cases} of {TOY.cases} cases" in done.output
    assert f"--seed 0 --only {KINDS.index('wrong')}: wrong: why" in done.output
    assert any(line.split() == ["wrong", "0", "0", str(counts["wrong"])] for line in done.output.splitlines())
    again = CliRunner().invoke(command.main, ["--ledgers", str(tmp_path), "--minutes", "0"])
    assert again.output == done.output
    monkeypatch.setattr(command, "code_version", lambda: "two")
    anew = CliRunner().invoke(command.main, ["--ledgers", str(tmp_path), "--minutes", "0"])
    assert f"0 of {TOY.cases} cases" in anew.output


def test_what_a_host_lacks_is_said_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "CAMPAIGNS", {"toy": TOY._replace(opened="tests.toy_attacks:not_here")})
    done = CliRunner().invoke(command.main, ["toy", "--ledgers", str(tmp_path)])
    assert (done.exit_code, "not tried: no such right" in done.output) == (0, True)
    assert "there are toy" in CliRunner().invoke(command.main, ["other"]).output


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Return a chain that has run, which takes longer than the cases."""
    chain = Chain.made(tmp_path_factory.mktemp("finished") / "chain")
    chain.run()
    return chain


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_short_campaign_breaks_nothing(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = [sys.executable, "-m", "attacks", name, "--short", "--jobs", "1", "--ledgers", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if name in {"kills", "full_disks"}:
        environment[FINISHED] = str(request.getfixturevalue("chain").root)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    if "not tried: " in done.stdout:
        pytest.skip(done.stdout.split("not tried: ")[1].splitlines()[0])
    assert f"{CAMPAIGNS[name].short} of {CAMPAIGNS[name].short} cases" in done.stdout
