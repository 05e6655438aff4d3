"""The library on its own: its wheel, installed where nothing of the checkout is, and the examples that use it."""

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import models
from tests.helpers import ROOT

EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if "run" not in path.stem)
"""Those of the library; the others open what a run left."""
CHANCE = {"torchvision_detector.py": 5.0}
"""Percent that guessing gives; of ten classes 10, of a box with its class next to nothing."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the library's wheel, without a network."""
    pytest.importorskip("hatchling", reason="the library's build backend; make install brings it")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT / "models")], folder)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of a new environment with the library, beside what this one has installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    installed = [place for place in sys.path if Path(place).name in {"site-packages", "dist-packages"}]
    (packages / "beside.pth").write_text("\n".join(installed))  # without what these name in turn: no editable install
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(packages)]
    run([sys.executable, "-m", "pip", "install", *options, str(wheel)], folder)
    return folder / "bin/python"


def run(command: list[str], folder: Path) -> str:
    """Return what ``command`` prints, run in ``folder`` without what this process was told of places."""
    kept = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "MYPYPATH"}}
    settings = kept | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def type_checking_imports() -> dict[str, set[str]]:
    """Return the names that type checkers see in the library's first file, by module."""
    tree = ast.parse((ROOT / "models/__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {str(node.module): {alias.name for alias in node.names} for node in imports}


def test_type_checkers_and_the_interpreter_find_the_same_names() -> None:
    places = {module: set(names) for module, names in models._PLACES.items()}
    assert type_checking_imports() == places
    assert set().union(*places.values()) == set(models.__all__) == set(dir(models))
    assert len(models.__all__) == sum(map(len, places.values()))
    with pytest.raises(AttributeError, match="'models' has no attribute 'FlowLoss'"):
        _ = models.FlowLoss


def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    described = [name for name in names if name.split("/")[0].endswith(".dist-info")]
    sources = [path for path in (ROOT / "models").rglob("*.py") if "__pycache__" not in path.parts]
    expected = {f"fmkt/{path.relative_to(ROOT / 'models')}" for path in sources} | {"fmkt/py.typed"}
    assert set(names) - set(described) == expected
    assert any(name.endswith("/licenses/LICENSE") for name in described)
    assert "\nName: fmkt\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra)", metadata, re.MULTILINE)
    assert required == ["torch", "torchvision"]
    assert "# fmkt" in metadata, "the page of a package index"


def test_the_licence_is_the_projects() -> None:
    assert (ROOT / "models/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_library_imports_pytorch_as_it_is_needed_and_nothing_of_the_checkout(python: Path, tmp_path: Path) -> None:
    code = """
        import json, sys
        import fmkt
        early = [name for name in sys.modules if name.split(".")[0] in ("torch", "torchvision")]
        schedules = list(fmkt.SCHEDULES)
        still = "torch" in sys.modules
        offered = {name: getattr(fmkt, name).__class__.__name__ for name in fmkt.__all__}
        files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
        own = [module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "fmkt"]
        print(json.dumps([early, schedules, still, offered, files, own, sys.path]))
    """
    early, schedules, still, offered, files, own, path = json.loads(
        run([str(python), "-c", textwrap.dedent(code)], tmp_path)
    )
    assert (early, still) == ([], False)
    assert schedules == ["rectified", "vp", "ve"]
    assert list(offered) == models.__all__
    folders = [str(ROOT / name) for name in ("models", "pipeline", "stages", "workbench", "attacks", "tests")]
    assert not [file for file in files if file.startswith(tuple(folders))]
    assert all(file.startswith(str(python.parent.parent)) for file in own)
    assert str(ROOT) not in path


def test_two_distributions_share_no_name() -> None:
    """Else installing one would take the other away."""
    names = [
        re.search(r'^name = "(.+)"', (ROOT / place / "pyproject.toml").read_text(), re.MULTILINE).group(1)  # type: ignore[union-attr]
        for place in (".", "models")
    ]
    assert names == ["fmkt-pipeline", "fmkt"]


USER = """
import fmkt
import torch
from torch import Tensor

criterion = fmkt.FlowTransferLoss(channels=16, num_classes=10, loss="kd", schedule="rectified", num_steps=[1, 2])
output = criterion.forward(torch.zeros(2, 16, 4, 4), torch.zeros(2, 10), torch.zeros(2, dtype=torch.long))
total: Tensor = output.total
parts: dict[str, Tensor] = output.parts
transfer = fmkt.FeatureTransferLoss(channels=16, teacher_channels=32, teacher_size=(4, 4))
refined: Tensor = transfer.forward(torch.zeros(2, 16, 4, 4), torch.zeros(2, 32, 4, 4)).features
theta = fmkt.ThetaTransferLoss(None, target="both", channels=16, num_classes=10)
folded = fmkt.fold(criterion.flow, num_steps=1, feature_size=(4, 4))
last: Tensor = folded.final_state(refined)
names: list[str] = [*fmkt.META_ENCODERS, *fmkt.SCHEDULES]
reveal_type(fmkt.kd_loss)
wrong = fmkt.ThetaTransferLoss(None, target="head")
absent = fmkt.FlowLoss
"""


@pytest.mark.slow
def test_types_reach_users(python: Path, tmp_path: Path) -> None:
    """Strictly: what is right passes, what is wrong is found, and nothing of the library is Any."""
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "--no-error-summary"]
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache"), "user.py"]
    settings = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "MYPYPATH"}}
    found = subprocess.run(
        [*command, *options], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False
    )
    lines = found.stdout.splitlines()
    assert len(lines) == 3, found.stdout + found.stderr
    assert "def (student:" in lines[0]
    assert "float" in lines[0]
    assert 'Argument "target" to "ThetaTransferLoss" has incompatible type' in lines[1]
    assert 'Module has no attribute "FlowLoss"' in lines[2]


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_runs_and_learns(example: Path, python: Path, tmp_path: Path) -> None:
    needed = {node.names[0].name.split(".")[0] for node in imports_of(example) if isinstance(node, ast.Import)}
    for name in needed - {"fmkt"}:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; make install brings it")
    printed = run([str(python), str(example)], tmp_path).strip().splitlines()
    percent = re.search(r"(\d+\.\d)%", printed[-1])
    assert percent, printed
    assert float(percent.group(1)) > 3 * CHANCE.get(example.name, 10.0), printed
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.slow
def test_the_code_of_its_page_runs(python: Path, tmp_path: Path) -> None:
    """In the order in which it stands, with networks of the shapes that the page says."""
    given = """
        import torch
        from torch import nn
        backbone, teacher = (nn.Sequential(nn.Conv2d(3, c, 3, 2, 1), *more) for c, more in (
            (512, []), (100, [nn.AdaptiveAvgPool2d(1), nn.Flatten()])))
        loader = [(torch.rand(2, 3, 14, 14), torch.tensor([7, 93]))]
        features, teacher_features = torch.rand(2, 64, 28, 28), torch.rand(2, 256, 14, 14)
        rest_of_the_student = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100))
    """
    blocks = python_of(ROOT / "models/README.md")
    end = "cost.backward(); print(tuple(student(images).shape))"
    code = "\n".join([textwrap.dedent(given), *blocks, end])
    assert run([str(python), "-c", code], tmp_path).strip() == "(2, 100)"


PAGES_IN_PYTHON = {
    "README.md": 1,
    "docs/backbones.md": 1,
    "docs/extending.md": 1,
    "docs/hosts.md": 1,
    "docs/tutorials/own-loop.md": 4,
    "models/README.md": 2,
}
"""From each page with Python in it to how many blocks it has; all of them run, but for those of ``READ_ALONE``."""
READ_ALONE = ("docs/extending.md", "docs/hosts.md")
"""An entry of a table, which tests/test_extensions.py has as a whole; a file for torchx, which is not installed."""


@pytest.mark.parametrize("page", ["README.md", "docs/tutorials/own-loop.md"])
def test_the_code_of_a_page_of_the_documentation_runs(page: str, python: Path, tmp_path: Path) -> None:
    """The tutorial brings what its code needs along; the front page leaves the networks to the reader."""
    given = """
        import torch
        from torch import nn
        backbone = nn.Conv2d(3, 512, 3, stride=2, padding=1)
        teacher = nn.Sequential(nn.Conv2d(3, 100, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        loader = [(torch.rand(2, 3, 14, 14), torch.tensor([7, 93]))]
    """
    blocks = python_of(ROOT / page)
    code = "\n".join([textwrap.dedent(given), *blocks, "print(tuple(student(images).shape)[1:])"])
    assert run([str(python), "-c", code], tmp_path).splitlines()[-1] == "(100,)"


def test_the_network_of_the_page_on_backbones_is_one(python: Path, tmp_path: Path) -> None:
    (tmp_path / "blocks.py").write_text("from torch import nn\n\ndef block(a, b):\n    return nn.Conv2d(a, b, 3)\n")
    [network] = python_of(ROOT / "docs/backbones.md")
    code = f"{network}\nimport torch\nprint(tuple(small(7)(torch.rand(2, 3, 32, 32)).shape))"
    assert run([str(python), "-c", code], tmp_path).strip() == "(2, 7)"


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", READ_ALONE)
def test_what_a_page_shows_of_python_is_python(page: str) -> None:
    for block in python_of(ROOT / page):
        assert ast.parse(block).body


def test_no_page_has_python_that_nothing_runs() -> None:
    pages = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md"))]
    pages += [ROOT / "benchmarks/README.md", *(ROOT / "docs").rglob("*.md")]
    counted = {page.relative_to(ROOT).as_posix(): len(python_of(page)) for page in pages}
    assert {name: count for name, count in counted.items() if count} == PAGES_IN_PYTHON


def imports_of(example: Path) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(example.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_need_the_library_and_a_framework_alone(example: Path) -> None:
    names = set()
    for node in imports_of(example):
        names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else {str(node.module)}
    outside = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert "fmkt" in outside
    assert outside <= {"fmkt", "pytorch_lightning", "sklearn", "timm", "torch", "torchvision"}
    lines = example.read_text().count("\n")
    assert lines <= (60 if example.name == "plain_loop.py" else 180)
