"""Digests of code: they change with what a stage runs, and with nothing else."""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from pipeline.core.errors import UserError
from pipeline.preflight import code
from pipeline.preflight.code import PROJECT, CodeReader, read_source, stage_digest, write_code_digests
from pipeline.preflight.stage_table import PROBE, STAGES, StageEntry
from stages import common
from stages.exit_codes import exit_codes

TREE = {
    "models/__init__.py": "",
    "models/net.py": 'from __future__ import annotations\nfrom .tools import helper\n\nSIZE = 3\n"""Its size."""\n',
    "models/tools.py": "def helper(x):\n    return x  # as it is\n",
    "pipeline/__init__.py": "",
    "pipeline/data/__init__.py": "",
    "pipeline/data/pack.py": 'from pathlib import Path\n\nTABLE = Path(__file__).with_name("table.json")\n',
    "pipeline/data/table.json": "{}",
    "pipeline/data/unused.json": "{}",
    "pipeline/kinds.py": "Kind = int\n",
    "pipeline/late.py": "def late():\n    import pipeline.data.pack\n    return pipeline.data.pack\n",
    "stages/__init__.py": "",
    "stages/first.py": "from pipeline.data.pack import TABLE\n\nprint(TABLE)\n",
    "stages/second.py": (
        "from typing import TYPE_CHECKING\n\nfrom models import net\n\n"
        "if TYPE_CHECKING:\n    from pipeline.kinds import Kind\n\nprint(net.SIZE)\n"
    ),
    "stages/third.py": 'from pipeline import late\n\nCOMMAND = ["-m", "stages.first"]\nlate.late()\n',
}
HELPER = TREE["models/tools.py"]


def write(project: Path, tree: Mapping[str, str]) -> None:
    for name, text in tree.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def entry(name: str, *never_loads: str) -> StageEntry:
    return StageEntry(name=name, description="x", options=(), never_loads=never_loads)


def digests(project: Path) -> dict[str, str]:
    reader = CodeReader(project)
    return {name: reader.digest(entry(name)) for name in ("first", "second", "third")}


def changed_by(project: Path, files: Mapping[str, str]) -> set[str]:
    """Return the stages whose digest changes when ``files`` get these contents."""
    before = digests(project)
    write(project, files)
    after = digests(project)
    return {stage for stage in after if after[stage] != before[stage]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project of three stages."""
    write(tmp_path / "project", TREE)
    return tmp_path / "project"


def test_the_closure_holds_what_a_stage_runs_and_the_data_that_it_names(project: Path) -> None:
    reader = CodeReader(project)
    packing = {"pipeline/__init__.py", "pipeline/data/__init__.py", "pipeline/data/pack.py", "pipeline/data/table.json"}
    first = packing | {"stages/__init__.py", "stages/first.py"}
    assert reader.closure("stages.first") == sorted(first)
    networks = {"models/__init__.py", "models/net.py", "models/tools.py"}
    assert reader.closure("stages.second") == sorted(networks | {"stages/__init__.py", "stages/second.py"}), (
        "a relative import counts, and one for type checkers does not"
    )
    assert reader.closure("stages.third") == sorted(first | {"pipeline/late.py", "stages/third.py"}), (
        "an import in a function counts, and so does a module that is named for another process"
    )


def test_what_a_stage_never_loads_does_not_count_nor_what_is_reached_through_it_alone(project: Path) -> None:
    write(project, {"stages/third.py": "from pipeline import late\n"})
    reader, light = CodeReader(project), entry("third", "pipeline/data/pack.py")
    left_out = set(reader.closure("stages.third")) - set(reader.stage_files(light))
    assert left_out == {"pipeline/data/pack.py", "pipeline/data/table.json"}
    before = reader.digest(light)
    write(project, {"pipeline/data/pack.py": "x = 1\n"})
    assert CodeReader(project).digest(light) == before


def test_code_that_no_digest_holds_is_refused(project: Path) -> None:
    write(project, {"helpers.py": "x = 1\n", "models/net.py": "import helpers\n"})
    with pytest.raises(UserError, match=r"^models/net.py: imports helpers, whose changes would rerun no stage; put"):
        CodeReader(project).digest(entry("second"))
    (project / "helpers.py").unlink()
    assert CodeReader(project).digest(entry("second")), "it may be an installed one"
    write(project.parent, {"elsewhere/more.py": "x = 1\n"})
    (project / "models/more").symlink_to(project.parent / "elsewhere")
    with pytest.raises(UserError, match=r"^models/more: a link; put the folder itself there"):
        CodeReader(project)


def test_a_data_file_counts_wherever_in_its_package_it_lies(project: Path) -> None:
    reading = 'from pathlib import Path\n\nTABLE = Path(__file__).parents[1] / "tables" / "table.json"\n'
    write(project, {"pipeline/data/pack.py": reading, "pipeline/tables/table.json": "{}", "models/table.json": "{}"})
    assert changed_by(project, {"pipeline/tables/table.json": "[]"}) == {"first", "third"}
    assert changed_by(project, {"models/table.json": "[]"}) == set()


def test_a_module_called_typing_is_none_of_the_standard_library(project: Path) -> None:
    write(project, {"models/typing.py": "SCALE = 1\n", "models/net.py": "from .typing import SCALE\nSIZE = SCALE\n"})
    assert changed_by(project, {"models/typing.py": "SCALE = 2\n"}) == {"second"}


@pytest.mark.parametrize(
    "importing",
    [
        "import pipeline.data.pack\n",
        "try:\n    from pipeline.data import pack\nexcept ImportError:\n    pass\n",
        "class A:\n    import pipeline.data.pack\n",
    ],
)
def test_what_is_imported_at_once_cannot_be_left_out(project: Path, importing: str) -> None:
    """An import in a function runs when it is called; any other runs with the stage."""
    write(project, {"pipeline/late.py": importing, "stages/third.py": "from pipeline import late\n"})
    with pytest.raises(UserError, match=r"^pipeline/late.py: imports pipeline/data/pack.py when it is itself imported"):
        CodeReader(project).digest(entry("third", "pipeline/data/pack.py"))


def test_a_stage_that_loads_what_its_digest_leaves_out_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise DVC would take its output for up to date when that code changes."""
    monkeypatch.setattr(common, "STAGES", {"third": entry("third", "pipeline/*/made_up.py")})

    @click.command()
    @common.stage_options("third")
    @click.argument("module")
    @exit_codes
    def command(params_path: Path, module: str) -> None:  # noqa: ARG001
        monkeypatch.setitem(sys.modules, module, ModuleType(module))

    assert CliRunner().invoke(command, ["pipeline.data.other"]).exit_code == 0
    monkeypatch.setitem(sys.modules, "pipeline.earlier.made_up", ModuleType("earlier"))
    assert CliRunner().invoke(command, ["pipeline.data.other"]).exit_code == 0, "another stage of this process ran it"
    with monkeypatch.context() as own_process:
        own_process.setattr(sys, "orig_argv", ["python", "-m", "stages.third"])
        loaded_at_once = CliRunner().invoke(command, ["pipeline.data.other"])
    assert "third has loaded pipeline.earlier.made_up" in str(loaded_at_once.exception)
    result = CliRunner().invoke(command, ["pipeline.data.made_up"])
    assert (result.exit_code, str(result.exception)) == (
        1,
        "third has loaded pipeline.data.made_up; take it out of its never_loads in pipeline/preflight/stage_table.py",
    )


@pytest.mark.parametrize(
    "text",
    [
        "def helper(x):\n    # another comment\n    return x\n",
        'def helper(x):\n    """Return x."""\n    return x\n',
        '"""Tools."""\n\n\ndef helper(\n    x,\n):\n    return (x)\n\n\n"""The end."""\n',
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.kinds import Kind\n{HELPER}",
        f"{HELPER}\n\n\n",
    ],
    ids=["comment", "docstring", "format", "type checking", "empty lines"],
)
def test_what_changes_nothing_does_not_count(project: Path, text: str) -> None:
    assert changed_by(project, {"models/tools.py": text}) == set()


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("models/tools.py", "def helper(x):\n    return +x\n", {"second"}),
        ("models/__init__.py", "VERSION = 1\n", {"second"}),
        ("models/net.py", f"{TREE['models/net.py']}SIZE: int = 3\n", {"second"}),
        ("models/tools/__init__.py", "", {"second"}),
        ("pipeline/__init__.py", "x = 'a'\n", {"first", "third"}),
        ("pipeline/data/table.json", "[]", {"first", "third"}),
        ("pipeline/data/unused.json", "[]", set()),
        ("pipeline/kinds.py", "Kind = str\n", set()),
        ("pipeline/late.py", f"{TREE['pipeline/late.py']}late.x = 1\n", {"third"}),
        ("stages/first.py", "print()\n", {"first", "third"}),
    ],
)
def test_a_change_counts_for_exactly_the_stages_that_run_it(
    project: Path, name: str, text: str, expected: set[str]
) -> None:
    assert changed_by(project, {name: text}) == expected


def test_a_renamed_file_counts_and_another_place_of_the_project_does_not(project: Path) -> None:
    before = digests(project)
    copy = project.parent / "elsewhere" / "copy"
    shutil.copytree(project, copy)
    assert digests(copy) == before
    (copy / "models/tools.py").rename(copy / "models/kit.py")
    write(copy, {"models/net.py": TREE["models/net.py"].replace(".tools", ".kit")})
    assert {stage for stage, digest in digests(copy).items() if digest != before[stage]} == {"second"}


def digest_of(text: str) -> str:
    return read_source(text.encode(), "models/a.py").digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = ['a', 'b']", "x = ['a' 'b']"),
        ("x = {**a}", "x = {a}"),
        ("x = -1", "x = +1"),
        ("x = a < b", "x = a <= b"),
        ("x = a if b else c", "x = b if a else c"),
        ("x = f'{a}b'", "x = f'{a}' 'c'"),
        ("x = f'{a!r}'", "x = f'{a!s}'"),
        ("x = f'{a:.2f}'", "x = f'{a:.3f}'"),
        ("x: int = 1", "x: str = 1"),
        ("lambda: ...", "lambda: None"),
        ("f(a, b)", "f(b, a)"),
        ("f(*a)", "f(a)"),
        ("f(a=1)", "f(b=1)"),
        ("def f(a, *, b=None): pass", "def f(a, b=None): pass"),
        ("def f(a, /, b): pass", "def f(a, b): pass"),
        ("def f(a): return a", "async def f(a): return a"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("if TYPE_CHECKING:\n    a\nelse:\n    b", "if TYPE_CHECKING:\n    a\nelse:\n    c"),
        ("try:\n    a\nexcept E:\n    b", "try:\n    a\nexcept F:\n    b"),
        ("from a import b", "from a import b as c"),
        ("from .a import b", "from ..a import b"),
    ],
)
def test_different_code_has_different_digests(one: str, other: str) -> None:
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 'a'", 'x = u"a"'),
        ("x = 'é'", "x = '\\xe9'"),
        ("x = 1_000", "x = 1000"),
        ("x = f'a{b}c'", "x = 'a' f'{b}' 'c' ''"),
        ("from a import (b,\n    c)", "from a import b, c"),
        ("from typing import TYPE_CHECKING, Any", "from typing import Any"),
        ("if TYPE_CHECKING:\n    a\nelse:\n    b", "b"),
        ("if typing.TYPE_CHECKING:\n    a\nb", "b"),
        ("class A:\n    x = 1\n    'What x is.'", "class A:\n    x = 1"),
    ],
)
def test_the_same_code_has_the_same_digest(one: str, other: str) -> None:
    assert digest_of(one) == digest_of(other)


EVERY_SYNTAX = """
import a.b as c
from . import d

@decorated(1)
class A(B, metaclass=C):
    x: int = 1
    def f(self, a, /, b=2, *c, d, e=None, **g) -> "A": return a @ b
    async def h(self):
        async with a as b, c: await b
        async for x in y: yield x
        return [x async for x in y if x]
try:
    raise A from None
except* (A, B) as e: pass
else: del a.b, c[1:2, ::3]
finally: assert x, f"{x!r:>{width}} {y=} {{}}"
match x:
    case {"a": 1, **rest} | [1, *_] if y: pass
    case A(b=-1) as z: pass
    case None: pass
while (n := 1) < 2 <= 3 != 4: break
else: continue
for i, *j in {**a, "b": 1.5e300}, {1, 2}: x += 1 if not a else ~b
global y
lambda *a, b=1: (yield from a)
print("\\N{DIGIT ONE}", rb"\\x", 10**20, 1j, ..., *a, **b)
"""


def test_a_digest_is_the_same_under_every_version_of_python() -> None:
    """Versions of Python add classes and fields of syntax trees; this is what 3.11 to 3.13 found."""
    assert digest_of(EVERY_SYNTAX)[:16] == "cae9eb76eb2e39cd"


@pytest.mark.parametrize("text", [b"def f(:\n", b"x = 1\ny = (\n", b"\tx = 1\n  y\n", b"x = 1\0\n", b"x = '\xe9'\n"])
def test_a_syntax_error_is_named_with_its_file_and_line_and_ends_with_two(
    project: Path, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "models/tools.py").write_bytes(text)
    monkeypatch.setattr(code, "PROJECT", project)
    monkeypatch.setattr(code, "STAGES", {"second": entry("second")})
    with pytest.raises(UserError, match=r"^models/tools.py, line \d+: .*; no stage runs before this is mended$"):
        stage_digest("second")
    with pytest.raises(SystemExit) as ended:
        exit_codes(write_code_digests)(project / "code.json")
    assert ended.value.code == 2
    assert not (project / "code.json").exists()
    assert CodeReader(project).digest(entry("first")), "a stage that does not run the file has its digest"


def test_an_unreadable_file_is_named(project: Path) -> None:
    reader = CodeReader(project)
    (project / "models/tools.py").unlink()
    with pytest.raises(UserError, match=r"^models/tools.py: cannot be read \(No such file or directory\)$"):
        reader.digest(entry("second"))


def test_the_file_of_digests_has_all_stages_but_the_probe(tmp_path: Path) -> None:
    write_code_digests(tmp_path / "code.json")
    found = json.loads((tmp_path / "code.json").read_text())
    assert list(found) == sorted(set(STAGES) - {PROBE})
    assert found == {name: stage_digest(name) for name in found}
    assert len(set(found.values())) == len(found)
    write_code_digests(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "code.json").read_bytes()


def test_the_file_of_digests_is_made_anew_where_anything_has_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code, "PROJECT", project)
    monkeypatch.setattr(code, "STAGES", {"first": entry("first"), "second": entry("second")})
    written, parsed = project / "code.json", list[str]()
    read = code.read_source
    monkeypatch.setattr(code, "read_source", lambda content, name: parsed.append(name) or read(content, name))

    def probe() -> tuple[dict[str, str], bool]:
        """Return the digests, and whether code was parsed for them."""
        parsed.clear()
        write_code_digests(written)
        return json.loads(written.read_text()), bool(parsed)

    before, _ = probe()
    assert probe() == (before, False), "nothing has changed"
    tools = project / "models/tools.py"
    tools.write_text(tools.read_text() + "# a comment\n")
    assert probe() == (before, True), "it changes no digest, but that has to be found out"
    tools.write_text(tools.read_text() + "MORE = 1\n")
    changed, _ = probe()
    assert {name for name in before if before[name] != changed[name]} == {"second"}
    for damaged in ("", "[]", json.dumps(changed | {"second": "0"})):
        written.write_text(damaged)
        assert probe() == (changed, True)
    (project / "beside.py").touch()
    assert probe()[1], "what lies beside the packages may be what they import"
    (project / "models/.#net.py").symlink_to("nowhere")
    assert probe()[1]
    assert not probe()[1], "an editor's lock is no file to read, and keeps no stage from running"


def test_all_digests_are_of_one_reading(project: Path) -> None:
    """Else those of a stage, edited meanwhile and put back, would stay with the digest of the files as they were."""
    before = digests(project)["second"]
    reader = CodeReader(project)
    reader.files_digest()
    (project / "models/tools.py").write_text("MORE = 1\n")
    assert reader.digest(entry("second")) == before


def test_every_data_file_beside_the_code_counts_for_a_stage() -> None:
    """Files are found by their names in the code; one that is named otherwise would change without a rerun."""
    reader = CodeReader(PROJECT)
    counted = {name for stage in STAGES.values() for name in reader.stage_files(stage)}
    data = {name for name in reader.files if not name.endswith(".py")}
    of_packaging = {"models/pyproject.toml", "models/README.md", "models/LICENSE", "models/py.typed"}
    assert data - counted <= of_packaging


@pytest.mark.parametrize(
    ("place", "stages"),
    [
        ("models/losses.py", {"prepare_data", "train_teacher", "export_tensorrt", "package"}),
        ("models/backbones/", {"prepare_data", "export_tensorrt", "package"}),
        ("models/meta_encoder.py", {"prepare_data", "export_tensorrt", "package"}),
        ("pipeline/distillation/", {"prepare_data", "train_teacher", "export_tensorrt", "package"}),
        ("pipeline/training/", {"prepare_data", "export_tensorrt", "package"}),
        ("pipeline/export/onnx/", {"prepare_data", "train_teacher", "distill_student", "calibrate_steps", "package"}),
        ("pipeline/package/", {"prepare_data", "train_teacher", "distill_student", "calibrate_steps"}),
        ("pipeline/params/schema.py", set(STAGES) - {PROBE}),
        ("pipeline/serving/", set(STAGES) - {"package"}),
        ("pipeline/comparison/", set(STAGES)),
        ("pipeline/tasks/detection/mistakes.py", set(STAGES) - {PROBE, "report"}),
        ("pipeline/tasks/classification/review.py", set(STAGES) - {PROBE, "report"}),
    ],
)
def test_what_is_added_late_in_the_chain_reruns_nothing_early(place: str, stages: set[str]) -> None:
    """A new loss must not pack the data again, nor an INT8 gate train the teacher."""
    reader = CodeReader(PROJECT)
    found = {stage: [name for name in reader.stage_files(STAGES[stage]) if name.startswith(place)] for stage in stages}
    assert {stage: names for stage, names in found.items() if names} == {}
