"""Several hosts that train together: how they meet, agree, watch each other and end; on one machine."""

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from pipeline.core import distributed
from pipeline.core.errors import DivergedError, LostHostError, LostPeerError, LostProcessError, SaidError, UserError
from pipeline.core.files import Json
from pipeline.core.libraries import library_versions
from pipeline.hosts import agent, head, joiner, launch, switchboard
from pipeline.hosts.addresses import interface_of, listen, own_address
from pipeline.hosts.agent_process import AgentProcess, environment
from pipeline.hosts.agreement import differences, files_of, params_of
from pipeline.hosts.channel import LONGEST_LINE, VERSION, Answer, Channel, Coming, Ended, Start, Training
from pipeline.hosts.joiner import Own, Place, call, take_part
from pipeline.hosts.outcome import Outcome
from pipeline.training.settings import Hosts
from stages.__main__ import main
from stages.exit_codes import errors_end_it
from tests.helpers import ROOT, refused
from workbench.project import TINY, copy_project, write_params

PARAMS: Json = {
    "base": {"seed": 0, "device": "cpu"},
    "train_teacher": {"weights": None, "epochs": 3},
    "other": {"x": 1},
}
KEYS = ("base", "train_teacher")
Message = TypeVar("Message")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hosts of this process call again at once."""
    monkeypatch.setattr(joiner, "PAUSE_SECONDS", 0.05)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.safetensors").write_bytes(b"pixels")
    return folder


def training_of(data: Path, **changes: Any) -> Training:
    """Return what a head says of a training of the stage ``toy`` on ``data``."""
    params = params_of(PARAMS, KEYS)
    found = Training(
        version=VERSION,
        silence_seconds=5.0,
        stage="toy",
        num_hosts=2,
        num_processes=2,
        code="0123",
        libraries=dict(library_versions()),
        params=params,
        files=dict(files_of({"data": data}, params)),
        facts={},
    )
    return replace(found, **changes)


def host(data: Path, words: list[str] | None = None, *, code: str = "0123", **changes: Any) -> Own:
    """Return a host with the ``data``, whose processes run ``words``."""
    place = Place(KEYS, {"data": data}, lambda _, __: words or [])
    own = Own("b", None, lambda: PARAMS, lambda _: place, lambda _: code, None)
    return own._replace(**changes)


def joined(port: int, own: Own) -> "Future[bool]":
    """Let ``own`` take part, in a thread, in the training that is called for at ``port``."""
    executor = ThreadPoolExecutor(1)
    found = executor.submit(lambda: take_part(call(f"127.0.0.1:{port}", seconds=30), own))
    executor.shutdown(wait=False)
    return found


def lead(training: Training, port: int, words: list[str] | None = None, *, seconds: float = 30.0) -> None:
    head.lead(training, words or [], endpoint=f"127.0.0.1:{port}", wait_minutes=seconds / 60)


def expect(channel: Channel, kind: type[Message]) -> Message:
    """Return what ``channel`` brings next, which must be of ``kind``."""
    message = channel.receive()
    assert isinstance(message, kind)
    return message


# ------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("192.0.2.1:29400", "192.0.2.1 (192.0.2.1) is no address of this host; DVC runs on the host that it names"),
        ("0.0.0.0:29400", "got 0.0.0.0, which is no address that others can call"),
        ("no-such-host.invalid:29400", "no-such-host.invalid has no IPv4 address"),
    ],
)
def test_an_endpoint_that_is_not_of_this_host_is_named(endpoint: str, words: str) -> None:
    with pytest.raises(UserError) as found:
        own_address(endpoint)
    assert str(found.value).startswith("execution.hosts.endpoint: ")
    assert words in str(found.value)


def test_a_name_that_is_loopback_on_this_host_is_none_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /etc/hosts has it on Debian; localhost and 127.0.0.1 are meant as they are."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("127.0.1.1", 0))])
    with pytest.raises(UserError, match=r"node1 is 127.0.1.1 on this host \(/etc/hosts\), which no other reaches"):
        own_address("node1:29400")
    monkeypatch.undo()
    assert own_address("localhost:29400") == own_address("127.0.0.1:1") == "127.0.0.1"


def test_a_port_that_is_taken_is_named(port: int) -> None:
    with listen("127.0.0.1", port) as listening:
        assert listening.getsockname() == ("127.0.0.1", port), "and at no other address"
        with pytest.raises(UserError, match=f"port {port} of this host is in use"):
            listen("127.0.0.1", port)


def test_gloo_and_nccl_use_the_interface_by_which_hosts_reach_each_other_unless_told_otherwise() -> None:
    assert interface_of("192.0.2.1") is None
    assert interface_of("127.0.0.1") == "lo"
    chosen = environment(10**6, "127.0.0.1", {"GLOO_SOCKET_IFNAME": "eth7", "HOME": "/root"})
    assert chosen == {
        "GLOO_SOCKET_IFNAME": "eth7",
        "NCCL_SOCKET_IFNAME": "=lo",
        "OMP_NUM_THREADS": "1",
        "HOME": "/root",
    }


# ------------------------------------------------------------------------------------------------------ agreement


def test_hosts_that_have_the_same_agree_wherever_it_lies(data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(data, tmp_path / "elsewhere" / "artifacts")
    own = params_of(PARAMS | {"other": {"x": 2}}, KEYS)
    assert list(differences(training_of(data), params=own, inputs={"data": other}, digest=lambda _: "0123")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": "4567"}, "the code of toy is not that of the head; check out the same commit"),
        ({"params": {"base.seed": 1}}, "base.device is 'cpu', and None on the head; give both the same parameters"),
        ({"libraries": {"torch": "1.0"}}, ", and 1.0 on the head; install the same"),
        ({"libraries": {"timm": "9.9", "no-such": "1"}}, "timm is "),
        ({"files": {"data/train.safetensors": "00"}}, "train.safetensors differs from the head's; share the folder"),
        (
            {"files": {"data/test.safetensors": "00"}},
            "test.safetensors is missing; share the folder, copy it, or use dvc",
        ),
        ({"files": {"base.device=": "00"}}, "base.device: the file 'cpu' is missing; copy it there from the head"),
    ],
)
def test_what_differs_is_named(changes: Json, words: str, data: Path) -> None:
    training = training_of(data, **changes)
    found = list(differences(training, params=params_of(PARAMS, KEYS), inputs={"data": data}, digest=lambda _: "0123"))
    assert words in found[0]


def test_files_that_parameters_name_are_compared_by_content(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"1")
    params = {"t.weights": str(weights), "t.backbone": f"onnx:{weights}", "t.name": "resnet8", "t.long": "x" * 5000}
    found = files_of({"data": data}, params)
    assert found.keys() == {"data/train.safetensors", "t.weights=", "t.backbone="}
    training = training_of(data, params=params, files=found)
    weights.write_bytes(b"2")
    lines = list(differences(training, params=params, inputs={"data": data}, digest=lambda _: "0123"))
    assert [line.partition(" the file ")[0] for line in lines] == ["t.backbone:", "t.weights:"]


def test_processes_are_shared_out() -> None:
    assert head.shared_out(8, [None, None, None]) == [2, 2, 2, 2]
    assert head.shared_out(8, [4, None, 2]) == [1, 4, 1, 2]
    for count, chosen in ((3, [None]), (4, [4]), (4, [5]), (4, [3, None])):
        with pytest.raises(UserError, match=f"execution.num_processes: got {count}, which {len(chosen) + 1} hosts"):
            head.shared_out(count, chosen)


# -------------------------------------------------------------------------------------------------------- channel


def test_messages_arrive_as_they_were_sent_and_signs_of_life_keep_a_connection(data: Path) -> None:
    one, other = (Channel(end, silence=1.5) for end in socket.socketpair(socket.AF_UNIX))
    sent = training_of(data)
    one.send(sent)
    assert expect(other, Training) == sent
    started = time.monotonic()
    threading.Timer(2.5, lambda: one.send(Ended(fault=None))).start()
    assert expect(other, Ended) == Ended(fault=None)
    assert time.monotonic() - started > 1.5
    one.close()
    with pytest.raises(LostHostError, match="closed its connection: it was ended"):
        other.receive()


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x04\x95\n",
        b'{"program": {}}\n',
        b'{"start": {"rank": 1}}\n',
        b'{"start": {"rank": -1, "processes": 1, "address": "a", "port": 1, "run": "r"}}\n',
        b'{"ended": {"fault": 1}}\n',
        b'{"ended": {"fault": null}, "answer": {}}\n',
        b"[]\n",
        b"x" * (LONGEST_LINE + 1),
    ],
)
def test_what_is_no_message_ends_a_connection(line: bytes) -> None:
    end, raw = socket.socketpair(socket.AF_UNIX)
    threading.Thread(target=raw.sendall, args=[line], daemon=True).start()
    with pytest.raises(LostHostError, match="says what no host of this pipeline does"):
        Channel(end, silence=5).receive()


def test_a_silent_host_is_lost() -> None:
    end, raw = socket.socketpair(socket.AF_UNIX)
    with pytest.raises(LostHostError, match=r"was not heard of for 0.2 seconds"):
        Channel(end, silence=0.2).receive()
    raw.close()


# -------------------------------------------------------------------------------------------------------- meeting


def test_a_host_that_never_comes_ends_the_training(data: Path, port: int) -> None:
    words = f"wait_minutes: 0 of 1 other host came to 127.0.0.1:{port} within 0.005 minutes; run fmkt join --endpoint"
    with pytest.raises(LostHostError, match=words):
        lead(training_of(data), port, seconds=0.3)
    words = r"1 of 2 other hosts \(b \(127.0.0.1\)\) came"
    waiting = joined(port, host(data))
    with pytest.raises(LostHostError, match=words):
        lead(training_of(data, num_hosts=3, num_processes=3), port, seconds=2)
    with pytest.raises(LostHostError, match=words):
        waiting.result()


def test_a_host_that_still_compares_hears_why_the_training_ended(data: Path, port: int) -> None:
    """It has come, as the head says; another is missing."""
    waiting = joined(port, host(data, before="sleep 3"))
    with pytest.raises(LostHostError, match=r"1 of 2 other hosts \(b \(127.0.0.1\)\) came"):
        lead(training_of(data, num_hosts=3, num_processes=3), port, seconds=2)
    with pytest.raises(LostHostError, match=r"1 of 2 other hosts \(b \(127.0.0.1\)\) came"):
        waiting.result()


def test_what_a_host_does_before_it_answers_is_no_waiting_for_it(data: Path, port: int) -> None:
    """It takes twice what the head waits, and the head hears its answer."""
    waiting = joined(port, host(data, before="sleep 2; exit 3"))
    with pytest.raises(LostHostError, match=r"^b \(127.0.0.1\) cannot take part: the command of --before ended"):
        lead(training_of(data), port, seconds=1)
    with pytest.raises(UserError, match="exit code 3"):
        waiting.result()


def test_a_host_that_goes_while_it_prepares_is_missing_again(data: Path, port: int) -> None:
    with ThreadPoolExecutor(1) as executor:
        leading = executor.submit(lead, training_of(data), port, seconds=1)
        with contextlib.closing(Channel(call(f"127.0.0.1:{port}", seconds=20), silence=5.0)) as gone:
            assert isinstance(gone.receive(), Training)
            gone.send(Coming(host="c"))
            time.sleep(1.5)
            assert not leading.done(), "it has come, and prepares"
        with pytest.raises(LostHostError, match="wait_minutes: 0 of 1 other host came"):
            leading.result()


def test_a_host_that_is_not_needed_hears_so_when_the_training_has_ended(data: Path, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        waiting = joined(port, host(data))
        of_head = Channel(server.accept()[0], silence=5)
        of_head.send(training_of(data))
        assert expect(of_head, Coming) == Coming(host="b")
        expect(of_head, Answer)
        of_head.send(Ended(fault=None))
        with pytest.raises(LostHostError, match="enough other hosts have joined; this one waits for the next training"):
            waiting.result()
        of_head.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": "4567"}, "the code of toy is not that of the head"),
        ({"read_params": lambda: PARAMS | {"base": {"seed": 7, "device": "cpu"}}}, "base.seed is 7, and 0 on the head"),
        ({"before": "rm {data}/train.safetensors"}, "train.safetensors is missing"),
        ({"before": "exit 3"}, "the command of --before ended with exit code 3: exit 3"),
    ],
)
def test_a_host_that_cannot_take_part_says_so_on_both_sides(
    changes: Json, words: str, data: Path, port: int, tmp_path: Path
) -> None:
    other = shutil.copytree(data, tmp_path / "other")
    if "before" in changes:
        changes = changes | {"before": changes["before"].format(data=other)}
    waiting = joined(port, host(other, **changes))
    with pytest.raises(LostHostError, match=r"^b \(127.0.0.1\) cannot take part: ") as found:
        lead(training_of(data), port)
    assert words in str(found.value)
    with pytest.raises(UserError, match=words):
        waiting.result()


def test_strangers_neither_join_nor_disturb(data: Path, port: int) -> None:
    """One says nothing, one speaks HTTP, one is gone at once; then comes a host."""
    with ThreadPoolExecutor(1) as executor:
        leading = executor.submit(lead, training_of(data), port)
        silent = call(f"127.0.0.1:{port}", seconds=30)
        call(f"127.0.0.1:{port}", seconds=1).sendall(b"GET / HTTP/1.1\r\n\r\n")
        call(f"127.0.0.1:{port}", seconds=1).close()
        waiting = joined(port, host(data, code="4567"))
        with pytest.raises(LostHostError, match="cannot take part: the code of toy"):
            leading.result()
        silent.close()
    with pytest.raises(UserError, match="the code of toy"):
        waiting.result()


def test_what_is_no_head_is_named(port: int, data: Path) -> None:
    for answer, kind, words in (
        (b"SSH-2.0-OpenSSH_9.6\r\n", LostHostError, "what answers at the endpoint says what no host of this pipeline"),
        (json.dumps({"dismissal": {"version": VERSION + 1}}).encode() + b"\n", UserError, "no head of this version"),
    ):
        with socket.create_server(("127.0.0.1", port)) as server:
            waiting = joined(port, host(data))
            connection, _ = server.accept()
            connection.sendall(answer)
            with pytest.raises(kind, match=words):
                waiting.result()
            connection.close()
    with pytest.raises(
        LostHostError, match=r"no training began at 127.0.0.1:\d+ within 0.001 minutes \(Connection refused"
    ):
        call(f"127.0.0.1:{port}", seconds=0.06)


def test_hosts_that_are_dismissed_end(data: Path, port: int) -> None:
    waiting = joined(port, host(data))
    assert head.dismiss(2, endpoint=f"127.0.0.1:{port}", seconds=20).told == ["127.0.0.1"]
    assert waiting.result() is False
    assert head.dismiss(2, endpoint=f"127.0.0.1:{port}", seconds=0.1) == ([], 0)


def test_a_connection_that_says_nothing_makes_room_for_a_host_that_is_let_end(
    data: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the head may wait for that host."""
    monkeypatch.setattr(switchboard, "MOST_CONNECTIONS", 0)
    monkeypatch.setattr(head, "ANSWER_SECONDS", 1.0)
    with ThreadPoolExecutor(1) as executor:
        dismissing = executor.submit(head.dismiss, 2, endpoint=f"127.0.0.1:{port}", seconds=20)
        with call(f"127.0.0.1:{port}", seconds=20) as idle:
            while idle.recv(2**16):
                pass
            waiting = joined(port, host(data))
            assert waiting.result() is False
        assert dismissing.result() == (["127.0.0.1"], 0)


@pytest.mark.parametrize(
    ("num_hosts", "joining", "words"),
    [
        (2, 0, "nobody waits: no host called 127.0.0.1:{port} within 0.5 seconds, where 1 could"),
        (3, 1, "1 of 2 hosts were told to end; no other called 127.0.0.1:{port} within 5 seconds: it has ended, or is"),
        (2, 1, "1 of 1 hosts were told to end\n"),
    ],
)
def test_who_was_told_to_end_is_said(
    num_hosts: int, joining: int, words: str, data: Path, port: int, tmp_path: Path
) -> None:
    endpoint = f"127.0.0.1:{port}"
    changes = {"execution.hosts.num_hosts": num_hosts, "execution.hosts.endpoint": endpoint}
    params = write_params(tmp_path / "params.yaml", {**changes, "execution.num_processes": num_hosts})
    waiting = [joined(port, host(data)) for _ in range(joining)]
    done = CliRunner().invoke(main, ["dismiss", "--params", str(params), "--wait", "5" if joining else "0.5"])
    assert done.exit_code == 0
    assert done.output.startswith(words.format(port=port))
    assert [one.result() for one in waiting] == [False] * joining


@pytest.mark.slow
def test_a_head_with_too_many_idle_connections_says_so_on_both_sides(
    data: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(switchboard, "MOST_CONNECTIONS", 1)
    with ThreadPoolExecutor(1) as executor, contextlib.ExitStack() as idle:
        leading = executor.submit(lead, training_of(data), port, seconds=2)
        for _ in range(2):
            idle.enter_context(call(f"127.0.0.1:{port}", seconds=20)).recv(1)
        for _ in range(2):
            with pytest.raises(LostHostError, match="the head took no call: 2 other connections are open at the head"):
                joined(port, host(data)).result()
        with pytest.raises(LostHostError, match=r"0 of 1 other host came .*; 2 calls were refused, as too many"):
            leading.result()
    assert [record.message for record in caplog.records if "are open here" in record.message] == [
        "2 connections are open here, most of them idle: further calls are refused until one ends"
    ]


def test_a_host_is_counted_once_however_often_it_says_that_it_ends(port: int) -> None:
    def call_twice() -> None:
        with call(f"127.0.0.1:{port}", seconds=20) as connection:
            connection.sendall(2 * (json.dumps({"ended": {"fault": None}}).encode() + b"\n"))
            connection.recv(2**16)
            time.sleep(1)

    with ThreadPoolExecutor(1) as executor:
        executor.submit(call_twice)
        assert head.dismiss(3, endpoint=f"127.0.0.1:{port}", seconds=2).told == ["127.0.0.1"]


def test_whoever_was_not_needed_is_told_how_it_ended(data: Path, port: int) -> None:
    """By the head, before it closes: not that the head has gone."""
    with ThreadPoolExecutor(1) as executor:
        leading = executor.submit(lead, training_of(data), port)
        with contextlib.closing(
            Channel(call(f"127.0.0.1:{port}", seconds=20), silence=5.0)
        ) as spare:  # greeted, and slow to answer
            assert isinstance(spare.receive(), Training)
            refusing = joined(port, host(data, code="4567"))
            with pytest.raises(LostHostError, match="cannot take part"):
                leading.result()
            said = spare.receive()
    assert isinstance(said, Ended)
    assert "the code of toy" in str(said.fault)
    with pytest.raises(UserError, match="the code of toy"):
        refusing.result()


@pytest.mark.parametrize("change", [{"silence_seconds": 1e300}, {"silence_seconds": 0.0}])
def test_times_that_no_clock_has_are_those_of_no_head(port: int, data: Path, change: dict[str, float]) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:
        waiting = joined(port, host(data))
        connection, _ = server.accept()
        content = {one.name: getattr(training_of(data), one.name) for one in fields(Training)} | change
        with connection:
            connection.sendall(json.dumps({"training": content}).encode() + b"\n")
            with pytest.raises(LostHostError, match="what answers at the endpoint says what no host"):
                waiting.result()


def test_an_error_of_accepting_ends_no_waiting(port: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that a caller has gone already, or that no file descriptor is free."""
    accept, errors = socket.socket.accept, [OSError(errno.EMFILE, "Too many open files")]
    monkeypatch.setattr(
        socket.socket, "accept", lambda self: (_ for _ in ()).throw(errors.pop()) if errors else accept(self)
    )
    waiting = joined(port, host(data))
    assert head.dismiss(2, endpoint=f"127.0.0.1:{port}", seconds=20).told == ["127.0.0.1"]
    assert waiting.result() is False
    assert not errors


@pytest.mark.parametrize(
    "endpoint",
    [
        "a",
        "a..b:29400",
        f"{'x' * 64}.net:29400",
        "h:0",
        "h:65536",
        "[::1]:29400",
        "::1:29400",
        " :5",
        "h:\u0665",
        "-h:5",
    ],
)
@pytest.mark.parametrize("command", ["join", "dismiss"])
def test_what_is_no_endpoint_is_said_at_once(command: str, endpoint: str, tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {"execution.num_processes": 2})
    words = [command, "--params", str(params), "--endpoint", endpoint, "--wait", "1"]
    refused(CliRunner().invoke(main, words), "--endpoint: got ")


@pytest.mark.parametrize("command", ["join", "dismiss"])
@pytest.mark.parametrize("wait", ["nan", "inf", "1e300", "0"])
def test_a_wait_is_a_time(command: str, wait: str) -> None:
    result = CliRunner().invoke(main, [command, "--endpoint", "127.0.0.1:5", "--wait", wait])
    assert result.exit_code == 2
    assert "Invalid value for '--wait'" in result.output


def test_dismissing_none_is_no_success(tmp_path: Path) -> None:
    params = write_params(tmp_path / "params.yaml", {})
    result = CliRunner().invoke(main, ["dismiss", "--params", str(params), "--endpoint", "127.0.0.1:5"])
    refused(result, "execution.hosts.num_hosts: got 1")


# ------------------------------------------------------------------------------------------------------- watching


class ToyAgent:
    """An agent that has ended with ``found``; None as long as it runs."""

    def __init__(self, *found: Outcome | None) -> None:
        self.found = list(found)

    def poll(self) -> bool:
        return bool(self.found)

    def outcome(self) -> Outcome | None:
        return self.found[0]


GONE = LostHostError("closed its connection: it was ended")
LOST = Outcome.of_lost_peer()
KILLED = Outcome.of_exit(-signal.SIGKILL)
SAID = Outcome.of_words("the loss is not finite", 1)


@pytest.mark.parametrize(
    ("own", "others", "error", "words"),
    [
        ([None], {"b": Ended(fault=None)}, None, ""),
        ([None], {"b": GONE}, None, ""),  # all was written before
        ([LOST], {"b": GONE}, LostHostError, "b closed its connection: it was ended"),
        ([], {"b": GONE}, LostHostError, "b closed its connection: it was ended"),
        ([], {"b": Answer(processes=1, fault=None)}, LostHostError, "b says what no host of this pipeline"),
        ([LOST], {"b": Ended(fault=KILLED.fault, weight=1)}, LostHostError, r"b: a process .* signal 9 \(Killed\)"),
        (
            [KILLED],
            {"b": Ended(fault=LOST.fault, weight=0)},
            LostProcessError,
            "ended by signal 9 .* memory ran short",
        ),
        ([LOST], {"b": Ended(fault=LOST.fault, weight=0)}, LostHostError, "lost each other"),
        ([LOST], {"b": Ended(fault=SAID.fault, weight=99)}, LostHostError, "b: the loss is not finite"),
        ([KILLED], {"b": Ended(fault=None), "c": Ended(fault=SAID.fault, weight=2)}, LostHostError, "c: the loss is"),
    ],
)
def test_of_several_failures_the_one_that_explains_the_others_is_told(
    own: list[Outcome | None], others: dict[str, Any], error: type[Exception] | None, words: str, data: Path, port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(head, "GRACE_SECONDS", 0.3)
    board = head.Switchboard(listen("127.0.0.1", port), training_of(data), silence=5, num_hosts=2)
    peers = []
    for name, message in others.items():
        peer = head.Peer(Channel(socket.socketpair()[0], silence=5), name)
        peers.append(peer)
        board.events.put(switchboard.Event(peer, message))
    watch = head._Watch(ToyAgent(*own), board, peers)  # type: ignore[arg-type]
    if error is None:
        watch.until_all_have_ended()
    else:
        with pytest.raises(error, match=words):
            watch.until_all_have_ended()
    board.close()


def test_what_befalls_a_host_when_all_is_written_counts_so_however_late_the_head_looks(data: Path, port: int) -> None:
    """Its processes have ended well in the moment in which it waits for a word of the others."""
    board = head.Switchboard(listen("127.0.0.1", port), training_of(data), silence=5, num_hosts=1)
    peer = head.Peer(Channel(socket.socketpair()[0], silence=5), "b")
    board.events.put(switchboard.Event(peer, GONE))
    agent = ToyAgent(None)
    agent.poll = board.events.empty  # type: ignore[method-assign]
    with contextlib.closing(board):
        head._Watch(agent, board, [peer]).until_all_have_ended()  # type: ignore[arg-type]


def test_torchruns_failures_are_told_apart() -> None:
    """A process that said what is wrong, one that was ended, and one that lost another."""

    def outcome(exit_code: int, said: Json) -> Outcome:
        return agent._outcome(SimpleNamespace(exitcode=exit_code, error_file_data=said))

    said = outcome(2, {"message": "m", "fault": "no such file", "lost_peer": False})
    assert said == Outcome("no such file", 2, 2, was_said=True)
    assert type(said.error()) is SaidError
    aborted = outcome(-6, {"message": "m", "fault": "no such file", "lost_peer": False})
    assert aborted == Outcome("no such file", 2, 1, was_said=True), "on its way out, by a thread of a library"
    endless = outcome(1, {"fault": "training diverged: x", "lost_peer": False, "diverged": True}).error()
    assert isinstance(endless, SaidError)
    assert isinstance(endless, DivergedError), "whoever started it can tell"
    lost = outcome(1, {"fault": "unable to find address for: eth7", "lost_peer": True})
    assert lost.fault == "unable to find address for: eth7"
    assert outcome(-9, {"message": "<NONE>"}).fault == "a process of the training was ended by signal 9 (Killed)"
    assert outcome(1, {"message": "<NONE>"}).fault == "a process of the training ended with exit code 1"
    weights = [lost.weight, outcome(-9, {}).weight, said.weight]
    assert weights == [0, 1, 2]


GLOO = "/pytorch/third_party/gloo/gloo"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(f"[{GLOO}/transport/tcp/pair.cc:545] Read error [127.0.0.1]:9637: Connection reset by peer."),
        RuntimeError(f"[{GLOO}/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.2]:4711"),
        RuntimeError(f"[{GLOO}/transport/tcp/pair.cc:374] writev [10.0.0.2]:4711: Broken pipe"),
        RuntimeError(f"[{GLOO}/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation to"),
        RuntimeError(f"Gloo connectFullMesh failed with [{GLOO}/transport/tcp/pair.cc:144] no error"),
        torch.distributed.DistNetworkError("The client socket has timed out after 600s while trying to connect to h"),
        torch.distributed.DistStoreError("wait timeout after 600000ms, keys: /default_pg/0//x"),
        torch.distributed.DistBackendError("NCCL error in: x.cpp:1, remote process exited\nncclRemoteError: A call"),
    ],
    ids=lambda error: str(error)[-40:],
)
def test_a_lost_connection_is_told_with_what_pytorch_says_of_it(error: RuntimeError) -> None:
    with pytest.raises(LostPeerError) as found, distributed._lost_peers_named():
        raise error
    first = str(error).partition("\n")[0]
    assert str(found.value) == f"another process of this training is gone, or cannot be reached ({first})"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("out of memory"),
        RuntimeError(f"[enforce fail at {GLOO}/transport/tcp/pair.cc:464] op.preamble.length <= op.nbytes. 9 vs 1."),
        RuntimeError(f"[enforce fail at {GLOO}/allreduce.cc:57] opts.elements > 0. 0 vs 0"),
        RuntimeError("Broken pipe in a data loader's worker"),
        torch.distributed.DistBackendError("NCCL error in: x.cpp:1\nncclUnhandledCudaError: Call to CUDA failed."),
    ],
    ids=lambda error: str(error)[-40:],
)
def test_what_else_pytorch_says_is_no_lost_connection(error: RuntimeError) -> None:
    with pytest.raises(type(error)) as found, distributed._lost_peers_named():
        raise error
    assert found.value is error


def test_an_interface_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gloo says it where the variable names one that this host lacks."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    said = f"[enforce fail at {GLOO}/transport/tcp/device.cc:84] ifa != nullptr. Unable to find address for: eth7"
    with pytest.raises(UserError, match=r"^GLOO_SOCKET_IFNAME: got 'eth7', no"), distributed._lost_peers_named():
        raise RuntimeError(said)


def test_a_wrong_endpoint_is_said_before_files_are_read(port: int) -> None:
    """To describe a training is to hash all that it reads."""

    def describe() -> Training:
        raise AssertionError("everything was read first")

    hosts = Hosts(num_hosts=2, endpoint="192.0.2.1:29400")
    with pytest.raises(UserError, match=r"192.0.2.1 .* is no address of this host"):
        launch.run_in_processes("x", 2, hosts, describe)
    with listen("127.0.0.1", port), pytest.raises(UserError, match=f"port {port} of this host is in use"):
        launch.run_in_processes("x", 2, hosts.model_copy(update={"endpoint": f"127.0.0.1:{port}"}), describe)


def test_no_host_that_calls_takes_the_first_look_at_the_endpoint_for_a_head(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would find it gone at once, which ends fmkt join --once."""

    class DescribedError(Exception):
        pass

    def describe() -> Training:
        raise DescribedError

    def listened(self: socket.socket, backlog: int) -> None:  # noqa: ARG001
        raise AssertionError("a host could have called")

    monkeypatch.setattr(socket.socket, "listen", listened)
    with pytest.raises(DescribedError):
        launch.run_in_processes("x", 2, Hosts(num_hosts=2, endpoint=f"127.0.0.1:{port}"), describe)


def test_what_a_process_says_is_short_enough_to_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent hands it on through a pipe that holds 64 KiB."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit), errors_end_it():
        raise UserError(f"key: got {'x' * 100_000}\x1b\nsecond line")
    said = json.loads((tmp_path / "error.json").read_text())
    assert said["fault"].startswith("key: got xxx")
    assert said["fault"].endswith("\\x1b")
    assert len(said["fault"]) < 1500


@pytest.mark.slow
def test_the_error_of_a_process_ends_both_hosts_with_its_words(
    data: Path, port: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["tests.host_process", str(tmp_path)]
    waiting = joined(port, host(data, words))
    with pytest.raises(SaidError, match="the loss is not finite"):
        lead(training_of(data), port, words)
    with pytest.raises(LostHostError, match="the head: the loss is not finite"):
        waiting.result()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["0 3", "1 3"]
    printed = capfd.readouterr()
    errors = [line for line in (printed.err + printed.out).splitlines() if "rror" in line]
    assert errors == ["error: the loss is not finite"], "what follows from it is not said"


@pytest.mark.slow
def test_a_host_that_goes_when_all_is_written_ends_nothing(
    data: Path, port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head's process has ended well, and its agent waits for that of the other host, which is still at work."""
    has_ended, outcome = threading.Event(), AgentProcess.outcome

    def noted(self: AgentProcess) -> Outcome | None:
        found = outcome(self)
        has_ended.set()
        return found

    monkeypatch.setattr(AgentProcess, "outcome", noted)
    words = ["timeit", "-n1", "-r1", "import os, time; time.sleep(99 * int(os.environ['GROUP_RANK']))"]
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(lambda: Channel(call(f"127.0.0.1:{port}", seconds=60), silence=60))

        def go_when_the_head_has_ended() -> None:
            channel = coming.result()
            expect(channel, Training)
            channel.send(Coming(host="b"))
            channel.send(Answer(processes=None, fault=None))
            running = AgentProcess(expect(channel, Start), words, num_hosts=2, own_address="127.0.0.1")
            try:
                assert has_ended.wait(60)
            finally:
                channel.close()
                running.stop()

        going = executor.submit(go_when_the_head_has_ended)
        lead(training_of(data), port, words)
        going.result()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["the training was written; then b (127.0.0.1) closed its connection: it was ended"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_that_are_told_to_end_do_so_without_a_word(
    number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the head, at a failure elsewhere, or by Ctrl-C, which all processes of a terminal get."""
    up = tmp_path / "up"
    quiet = "import os, pathlib, signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL)"
    code = f"{quiet}; pathlib.Path({str(up)!r}).write_text(f'{{os.getpid()}}.'); time.sleep(60)"
    store = listen("127.0.0.1", 0)
    start = Start(rank=0, processes=1, address="127.0.0.1", port=store.getsockname()[1], run="x")
    words = ["timeit", "-n", "1", "-r", "1", code]
    running = AgentProcess(start, words, num_hosts=1, own_address="127.0.0.1", listening=store)
    try:
        wait_until(lambda: up.exists() and up.read_text().endswith("."), lambda: "no process came up")
        os.kill(running._process.pid, number)
        assert running.outcome() is not None
    finally:
        running.stop()
    assert not Path("/proc", up.read_text().rstrip(".")).exists()
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------- the whole of it


def test_a_host_that_waits_does_without_pytorch() -> None:
    code = "import sys, pipeline.hosts.joiner, stages.commands.join, stages.hosts; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def running_in(*folders: Path) -> list[str]:
    """Return the command lines of the processes whose working directory is one of ``folders``."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").resolve() in folders:
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:  # ended, or another user's
            continue
    return found


class Clone:
    """A folder with the project on one of the hosts, where one command runs at a time."""

    def __init__(self, root: Path, changes: Json) -> None:
        copy_project(root, changes)
        subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
        self.root = root
        self.log = root / "log.txt"
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start ``python -m`` with ``words``; what it prints goes to the log, from here on."""
        variables = {**os.environ, "PYTHONPATH": ""}
        variables.pop("DVC_ROOT", None)
        variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
        command = [sys.executable, "-m", *words]
        with self.log.open("wb") as log:
            self.started.append(subprocess.Popen(command, cwd=self.root, env=variables, stdout=log, stderr=log))
        return self.started[-1]

    def wait_for(self, words: str) -> None:
        """Return when the log has ``words``."""
        wait_until(lambda: words in self.log.read_text(), lambda: f"{words!r} is not in: {self.log.read_text()}")

    def errors(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith("error: ")]


def wait_until(is_so: Callable[[], bool], why: Callable[[], str]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


@pytest.fixture
def clones(tmp_path: Path, port: int) -> Iterator[tuple[Clone, Clone]]:
    changes = {
        **TINY,
        "base.device": "cpu",
        "prepare_data.max_train_images": 100,
        "train_teacher.training.epochs": 30,
        "execution.num_processes": 2,
        "execution.hosts.num_hosts": 2,
        "execution.hosts.endpoint": f"127.0.0.1:{port}",
    }
    one, other = (Clone(tmp_path / name, changes) for name in ("head", "other"))
    yield one, other
    for process in (*one.started, *other.started):
        process.kill()
        process.wait()
    wait_until(lambda: not running_in(one.root, other.root), lambda: f"left: {running_in(one.root, other.root)}")


@pytest.mark.slow
def test_two_clones_train_together_through_kills_of_each_to_the_bits_of_one(clones: tuple[Clone, Clone]) -> None:
    """``dvc repro`` in one and ``fmkt join`` in the other; each is killed once, and training goes on from there.

    The one that joined is killed while they train, the one that leads when it has begun to start its processes.
    """
    one, other = clones
    params = (one.root / "params.yaml").read_text()
    (one.root / "params.yaml").write_text(params.replace("num_hosts: 2", "num_hosts: 1"))
    assert one.start("dvc", "repro", "train_teacher").wait() == 0, one.log.read_text()
    alone = load_file(one.root / "artifacts/teacher/model.safetensors")
    (one.root / "params.yaml").write_text(params)
    shutil.rmtree(one.root / ".checkpoints")  # of the same training, whatever hosts it runs on
    again = ("dvc", "repro", "--force", "--single-item", "train_teacher")
    copying = f"mkdir -p artifacts && cp -r {one.root}/artifacts/data artifacts"
    joining = other.start("stages", "join", "--before", copying)

    repro = one.start(*again)
    one.wait_for("epoch 2/30")
    joining.kill()
    assert repro.wait() != 0
    assert "Traceback" not in one.log.read_text()
    (error,) = one.errors()
    assert error.endswith("(127.0.0.1) closed its connection: it was ended")
    joining.wait()
    wait_until(lambda: not running_in(one.root, other.root), lambda: str(running_in(one.root, other.root)))

    joining = other.start("stages", "join", "--before", copying)
    repro = one.start(*again)
    one.wait_for("has joined")
    repro.kill()
    repro.wait()
    other.wait_for("error: the head closed its connection: it was ended\nwaiting for a training at")
    wait_until(lambda: len(running_in(one.root, other.root)) == 1, lambda: str(running_in(one.root, other.root)))

    assert one.start(*again).wait() == 0, one.log.read_text()
    assert "going on after its epoch" in one.log.read_text()
    other.wait_for("the training has ended well")
    together = load_file(one.root / "artifacts/teacher/model.safetensors")
    torch.testing.assert_close(together, alone, rtol=0, atol=0)
    assert not (other.root / "artifacts/teacher").exists(), "other hosts write no outputs"
    assert not (other.root / "reports").exists()
    assert one.start("stages", "dismiss").wait() == 0
    assert joining.wait() == 0
    assert "Traceback" not in other.log.read_text()
    assert "1 of 1 hosts were told to end" in one.log.read_text()
