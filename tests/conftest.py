"""Fixtures shared by the tests."""

import gc
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from workbench.project import write_params

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup, where a test of it would wait in vain
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
OF_CALLERS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "GIT_DIR", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_WORK_TREE")
"""Of `make test`, and of git where a hook or a rebase runs the tests; what they start is nobody's part."""
for name in OF_CALLERS:
    os.environ.pop(name, None)
for name in ("no_proxy", "NO_PROXY"):  # the servers of tests are on this host, which no proxy of the user reaches
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
for number, name in enumerate(("commit.gpgSign", "tag.gpgSign"), start=int(os.environ.get("GIT_CONFIG_COUNT", "0"))):
    os.environ |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": "false"}  # whatever ~/.gitconfig has
    os.environ["GIT_CONFIG_COUNT"] = str(number + 1)
COUNTER = itertools.count()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from what stays to the end: modules and tests, through which it goes again and again.

    While they come it finds nothing, and it would take a third of the time; then it leaves them alone.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _places_of_its_own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give each test a folder for checkpoints and a list of built engines, as each repository and user has them.

    They lie in the test's own folder, or, where it asks for none, at a place that nobody makes until it is written to.
    """
    if "tmp_path" in request.fixturenames:
        place = request.getfixturevalue("tmp_path")
    else:
        place = tmp_path_factory.getbasetemp() / f"without-folder/{next(COUNTER)}"
    monkeypatch.setenv("DVC_ROOT", str(place))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Let PyTorch compute on one thread; the process that hands the tests to others never imports it."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _settings_of_pytorch() -> Iterator[None]:
    """Undo what stages that run in this process set for their own."""
    import torch

    yield
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def params_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the default parameters with changes, e.g. ``{"base.seed": 1}``, to a file."""
    return lambda changes: write_params(tmp_path / "params.yaml", changes)


@pytest.fixture
def prepare(tmp_path: Path, params_file: Callable[..., Path]) -> Callable[..., Result]:
    """Return a function that runs the stage on an image folder or archive."""
    from stages.prepare_data import main

    def run(root: Path | None, source: str = "imagefolder", **changes: Any) -> Result:
        settings = {"source": source, "root": None if root is None else str(root), **changes}
        params = params_file({f"prepare_data.{key}": value for key, value in settings.items()})
        return CliRunner().invoke(main, ["--params", str(params), "--out", str(tmp_path / "out")])

    return run
