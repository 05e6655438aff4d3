"""Every path, command, parameter and preset that the documents name exists."""

import functools
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.params.presets import list_presets
from stages.__main__ import main
from tests.helpers import ROOT
from tests.measured_results import measured, rows_of
from workbench.project import default_params

README = ROOT / "README.md"
PARAMS = YAML(typ="safe").load(default_params())
DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
DOCUMENTS = [README, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md"))]
DOCUMENTS += [ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_ITS_TIME = ("CHANGELOG.md", "docs/decisions/")
"""Documents whose commands were right when they were written."""
PROGRAMS = {"make", "dvc", "fmkt", "python", "gto", "pip", "source", "git", ".venv/bin/pre-commit"}


def commands_of(document: Path) -> list[str]:
    """Return the commands of the document's bash blocks, and those in its text; a script is sh, not bash."""
    text = document.read_text()
    blocks = [block.replace("\\\n", " ") for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split(" #")[0].split("&&")]
    texts = [line for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    own = [re.search(r"(?:^|/|&& )(?:python fmkt\.pyz|fmkt) ([a-z-]+( .*)?)$", line.split(" #")[0]) for line in texts]
    parts += [f"fmkt {re.sub(r'[][]', '', found[1])}" for found in own if found]
    codes = [code for code in re.findall(r"`([^`\n]+)`", text) if code.split()[0] in PROGRAMS and " " in code]
    usages = re.compile(r"\[OPTIONS\]|fmkt\.pyz|\.\.\.$")  # of the reference, and of the program in a package
    return [
        command
        for command in [*parts, *codes]
        if command and not command.startswith("#") and not usages.search(command)
    ]


def is_of_its_time(document: Path) -> bool:
    return document.relative_to(ROOT).as_posix().startswith(OF_ITS_TIME)


COMMANDS = sorted({c for document in DOCUMENTS if not is_of_its_time(document) for c in commands_of(document)})


def generated() -> set[str]:
    """Return the paths that the pipeline writes."""
    text = (ROOT / "dvc.yaml").read_text() + (ROOT / "Makefile").read_text()
    return set(re.findall(r"(?:artifacts|reports)/[\w./]*[\w/]", text)) | {"artifacts/package/README.md"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    assert all(target.startswith("https://") or (document.parent / target).exists() for target in targets)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_anchors_are_headings(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text()):
        text = (document.parent / target if target else document).read_text()
        headings = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
        assert anchor in {slug(heading) for heading in headings}, f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_paths_exist_or_are_written_by_the_pipeline(document: Path) -> None:
    outs = generated()
    for code in re.findall(r"`([^`\n]+)`", document.read_text()):
        if re.fullmatch(r"[\w.-]+(/[\w.-]*)+", code) and not code.startswith("/"):
            written = any(
                code == out or code.startswith(f"{out}/") or out.startswith(f"{code.rstrip('/')}/") for out in outs
            )
            assert (ROOT / code).exists() or written, code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_parameters_exist(document: Path) -> None:
    for section, rest in re.findall(rf"\b({'|'.join(PARAMS)})\.([a-z_.]*[a-z_])\b", document.read_text()):
        value = PARAMS[section]
        if rest in {"json", "py"}:
            continue
        for key in rest.split("."):
            assert key in value, f"{section}.{rest}"
            value = value[key]


def test_commands_are_named() -> None:
    assert len(COMMANDS) > 15
    assert {"make repro", "make test"} <= set(commands_of(README)), "a person, and what runs the tests, look there"


def test_the_front_page_is_short_and_shows_a_picture() -> None:
    text = README.read_text()
    assert text.count("\n") <= 120
    assert text.count("<picture>") == 1
    shown = re.findall(r"(\d+\.\d)%", text[text.index("<img alt=") : text.index("</picture>")])
    long = "cifar10-long"
    [flow] = [row for row in rows_of(f"{long}/steps.csv") if (row["method"], row["num_steps"]) == ("fm_kt", "1")]
    assert shown == [
        measured(f"{long}/table.csv; none; score; .1%"),
        f"{100 * float(flow['score']):.1f}",
        measured(f"{long}/table.csv; metric_meta, 4 heads; score; .1%"),
        measured(f"{long}/README.md; Teacher: resnet20, top-1 accuracy; .1f"),
    ]


@functools.cache
def help_of(*command: str) -> str:
    return subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout


def check_own_command(words: list[str]) -> None:
    """Assert that the command and its options are there, and a preset or parameter that it names."""
    command, *arguments = [word for word in words if word != "--help"] or [""]
    run = CliRunner().invoke(main, [command, "--help"] if command else ["--help"])
    assert run.exit_code == 0
    assert all(word in run.output for word in arguments if word.startswith("--"))
    if command == "preset":
        assert set(arguments) - {"NAME"} <= set(list_presets(ROOT / "presets"))
    if command == "params" and len(arguments) > 1:
        assert CliRunner().invoke(main, words).exit_code == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "fmkt" or words[:3] == ["python", "-m", "stages"]:
        check_own_command(words[1:] if words[0] == "fmkt" else words[3:])
    elif words[0] in {"python", "torchrun"} and "-m" in words:
        module = words[words.index("-m") + 1]
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists() or find_spec(module)
    elif words[0] == "python":
        assert (ROOT / words[1]).exists()
    elif words[0] in {"dvc", "gto"}:
        subcommand = [word for word in words[1:3] if re.fullmatch("[a-z]+", word)]
        options = [word for word in words if word.startswith("-")]
        known = help_of(words[0], *subcommand)
        assert all(option in known for option in options)
    elif words[0] == "source":
        assert words[1] == ".venv/bin/activate"
    else:
        known = {
            "git": ["add", "commit", "checkout", "config", "pull"],
            "pip": ["install", "download"],
            ".venv/bin/pre-commit": ["install"],
        }
        assert words[1] in known[words[0]], command


def test_every_stage_and_no_other_stands_in_the_table() -> None:
    text = (ROOT / "docs/reference/stages.md").read_text()
    table = text[text.index("| stage | does") : text.index("A stage ends with 0")]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(DVC["stages"])


def test_the_artifact_that_is_fetched_is_declared() -> None:
    fetched = re.findall(r"dvc artifacts get \S+ ([\w-]+)", (ROOT / "docs/how-to/versions.md").read_text())
    assert fetched
    assert set(fetched) <= set(DVC["artifacts"])


def test_every_decision_is_listed() -> None:
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/decisions/README.md").read_text())
    assert listed == sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))


def test_make_help_lists_every_target() -> None:
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in listed.splitlines()] == targets


def test_what_has_not_run_is_said_in_one_place() -> None:
    said = re.compile(
        r"(has|have|had) (not|never) (been )?(run|tried|tested|built)|not (been )?run here|[Nn]ot run:|[Nn]ot tried"
    )
    for document in DOCUMENTS:
        if not is_of_its_time(document) and document.name != "what-was-run.md":
            assert not said.search(" ".join(document.read_text().split())), f"{document}: docs/what-was-run.md says it"


def test_the_output_that_the_readme_shows_was_printed() -> None:
    (block,) = re.findall(r"```text\n(ships .*?)```", README.read_text(), re.DOTALL)
    printed = (ROOT / "benchmarks/results/first-run/summary.txt").read_text().splitlines()
    assert len(block.splitlines()) == 5
    assert set(block.splitlines()) <= set(printed)


def test_the_continuous_check_runs_what_the_readme_says() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make check"
    assert re.search(r"^check: lint types test-all ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "make test-all" in README.read_text()
    workflow = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert runs == ["bash .ci/run", "make docs"]


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_a_form_has_what_is_asked_of_one(form: Path) -> None:
    """As GitHub documents forms: a form with a fault in it is not offered, without a word."""
    content = YAML(typ="safe").load(form.read_text())
    if form.stem == "config":
        assert content == {"blank_issues_enabled": False}
        return
    assert content.keys() == {"name", "description", "body"}
    asked = [field for field in content["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in asked} == {"textarea"}
    assert len({field["id"] for field in asked}) == len(asked) == len({f["attributes"]["label"] for f in asked})
    assert any(field.get("validations", {}).get("required") for field in asked)
