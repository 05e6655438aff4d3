"""The probe: wrong parameters and paths stop it before any stage runs, and changed files are noticed."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.core.errors import UserError
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.package.settings import PackageSettings
from pipeline.preflight import checks, package_facts
from pipeline.preflight.checks import check_device, data_fingerprint, earlier_inputs
from pipeline.preflight.package_facts import package_name
from pipeline.runtimes.onnx import available_providers
from stages.probe_environment import main as probe
from tests.helpers import fill_folder, make_archive, refused

WriteParams = Callable[[dict[str, Any]], Path]
OWN = {"prepare_data.source": "imagefolder", "package.name": "pets"}
FEATURES = {"distill_student.transfer": "features", "distill_student.loss": "pkd"}


def run_probe(params: Path, out: Path) -> Result:
    """Run the probe on ``params``; it writes ``out`` and, beside it, the digests of the code."""
    code = out.with_name("code.json")
    return CliRunner().invoke(probe, ["--params", str(params), "--out", str(out), "--code", str(code)])


@pytest.mark.parametrize("content", ["{", "{}", '{"inputs": {}}'])
def test_the_probe_outlives_a_damaged_or_older_file_of_facts(
    content: str, tmp_path: Path, params_file: WriteParams
) -> None:
    out = tmp_path / "environment.json"
    out.write_text(content)
    assert run_probe(params_file({}), out).exit_code == 0
    assert earlier_inputs(out)["backbones"] == ["resnet8", "resnet8x4"]


def test_a_gpu_that_is_not_there_is_noticed_at_once() -> None:
    with pytest.raises(
        UserError, match=r"base.device: got 'cuda:1', but this host has 1 NVIDIA GPU\(s\); use auto or cpu"
    ):
        check_device("cuda:1", num_gpus=1)
    check_device("cuda:1", num_gpus=2)
    check_device("auto", num_gpus=0)


@pytest.mark.parametrize("provider", sorted({"cuda", "tensorrt"} - set(available_providers())))
def test_a_provider_that_is_not_there_is_noticed_at_once(
    provider: str, tmp_path: Path, params_file: WriteParams
) -> None:
    result = run_probe(params_file({"evaluate.provider": provider}), tmp_path / "environment.json")
    refused(result, f"evaluate.provider: got '{provider}', which is not available here; it needs an NVIDIA GPU")


def test_an_unknown_backbone_is_answered_with_the_nearest_ones_and_where_all_are_listed(
    params_file: WriteParams, tmp_path: Path
) -> None:
    key = "distill_student.backbone"
    done = run_probe(params_file({key: "mobilenet_v4"}), tmp_path / "environment.json")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {key}: unknown backbone 'mobilenet_v4'; did you mean mobilenet_v2 or ")
    assert line.endswith(
        f" are known, others as timm:NAME, python:FILE.py:FUNCTION; fmkt params --explain {key} lists all"
    )
    assert len(line) < 300


def test_a_source_of_a_task_that_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(SOURCES["digits"], task="classificaton")
    monkeypatch.setattr(checks, "SOURCES", {"digits": entry})
    with pytest.raises(UserError, match=r"^prepare_data.source: unknown task 'classificaton'; did you mean"):
        data_fingerprint(PrepareData())


@pytest.mark.parametrize("source", ["imagefolder", "cifar10"])
def test_a_relative_root_is_named_with_where_it_was_looked_for(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment in a copy of the repository has another working directory."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"photos in {tmp_path}; an absolute path is found from everywhere"):
        data_fingerprint(PrepareData(source=source, root="photos"))
    with pytest.raises(UserError) as caught:
        data_fingerprint(PrepareData(source=source, root="/no/photos"))
    assert "everywhere" not in str(caught.value)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one of the system's: nobody but root reads lost+found."""
    images = fill_folder(tmp_path / "images", {"cat": 2, "lost+found": 1})
    scandir = os.scandir

    def without_dogs(path: Path) -> Iterator[os.DirEntry[str]]:
        if Path(path).name in {"dog", "lost+found"}:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", without_dogs)
    assert data_fingerprint(PrepareData(source="imagefolder", root=str(images))).startswith("directory ")
    fill_folder(images, {"dog": 2})
    with pytest.raises(UserError, match=r"images/dog: cannot be read \(Permission denied\)"):
        data_fingerprint(PrepareData(source="imagefolder", root=str(images)))


@pytest.mark.slow
def test_the_probe_ends_with_two_and_one_line_and_writes_nothing(tmp_path: Path, params_file: WriteParams) -> None:
    out = tmp_path / "environment.json"
    for changes in (
        {"base.seed": "x"},
        OWN | {"prepare_data.root": str(tmp_path / "nowhere")},
        {"train_teacher.weights": str(tmp_path / "no.pt")},
        {"distill_student.backbone": "resnet9"},
        {"train_teacher.backbone": "resnet19"},
        OWN | {"prepare_data.root": str(tmp_path / "params.yaml")},
        {"prepare_data.source": "cifar10", "prepare_data.root": str(tmp_path / "nowhere")},
        FEATURES | {"distill_student.feature_pairs": [[2, 2], [4, 3]]},
        FEATURES | {"distill_student.backbone": "timm:hiera_tiny_224"},
        {"distill_student.method": "fm_kt_theta", "distill_student.backbone": "timm:hiera_tiny_224"},
    ):
        result = run_probe(params_file(changes), out)
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert not out.exists()


def test_the_probe_notices_changed_images(tmp_path: Path, params_file: WriteParams) -> None:
    images = fill_folder(tmp_path / "images", {"cat": 2, "dog": 2})
    params = params_file(OWN | {"prepare_data.root": str(images)})
    facts = []
    for _ in range(2):
        out = tmp_path / "environment.json"
        assert run_probe(params, out).exit_code == 0
        facts.append(out.read_text())
        (images / "cat/new.png").write_bytes(b"new")
    assert facts[0] != facts[1]


def test_a_network_that_a_sources_images_do_not_suit_is_refused(params_file: WriteParams, tmp_path: Path) -> None:
    student = {"distill_student.backbone": "timm:test_vit"}  # patches of 16 x 16, digits have 8 x 8
    refused(run_probe(params_file(student), tmp_path / "environment.json"), "distill_student.backbone", "8 x 8")


@pytest.mark.parametrize(
    ("source", "name"),
    [("digits", "fmkt-digits"), ("digit_scenes", "fmkt-digit-scenes"), ("cifar10", "fmkt-cifar10")],
)
def test_a_known_data_set_names_its_package(source: str, name: str) -> None:
    assert package_name(PackageSettings(), source) == name
    assert package_name(PackageSettings(name="mine"), source) == "mine"


@pytest.mark.parametrize("source", ["imagefolder", "coco", "yolo", "voc"])
def test_a_package_of_ones_own_images_has_no_name_but_what_is_given(
    source: str, tmp_path: Path, params_file: WriteParams
) -> None:
    """It is asked for before images are looked for."""
    assert package_name(PackageSettings(name="pets"), source) == "pets"
    with pytest.raises(UserError, match=r"package.name: got null, but images of source .* are your own"):
        package_name(PackageSettings(), source)
    own = {"prepare_data.source": "imagefolder", "prepare_data.root": str(tmp_path / "nowhere")}
    done = run_probe(params_file(own), tmp_path / "environment.json")
    refused(done, "package.name: got null", "lower-case letters, digits and hyphens: -S package.name=my-model")


def test_the_probe_tells_what_the_package_says_of_the_images(
    tmp_path: Path, params_file: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "environment.json"

    def facts(changes: dict[str, Any]) -> Any:
        done = run_probe(params_file(changes), out)
        assert done.exit_code == 0, done.output
        return json.loads(out.read_text())["inputs"]["package"]

    digits = facts({})
    assert digits["name"] == "fmkt-digits"
    assert digits["data"]["name"] == "digits"
    assert digits["data"]["newest_file"] is None
    assert digits["data"]["carried_by"].startswith("scikit-learn 1.")
    images = fill_folder(tmp_path / "cats and dogs", {"cat": 2, "dog": 2})
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        os.utime(path, (0, 1_000_000_000 + 86_400 * number))  # from 2001-09-09 01:46:40 UTC on
    own = OWN | {"prepare_data.root": str(images)}
    expected = {"name": "cats and dogs", "newest_file": "2001-09-12", "carried_by": None}
    assert facts(own) == {"name": "pets", "data": expected}
    with monkeypatch.context() as patch:
        patch.setattr(package_facts, "newest_day", None)
        assert facts(own)["data"] == expected, "the same images are not looked at twice"
    os.utime(images / "cat/000.png", (0, 1_700_000_000))
    assert facts(own)["data"]["newest_file"] == "2023-11-14"
    archive = make_archive(images, "zip")
    os.utime(archive, (0, 1_600_000_000))
    found = facts(OWN | {"prepare_data.root": str(archive)})["data"]
    assert found == {"name": "images.zip", "newest_file": "2020-09-13", "carried_by": None}
