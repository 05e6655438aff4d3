"""Networks of the user's own and of timm: where they are cut, what is refused and how, and what makes them anew."""

import json
import os
import py_compile
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.backbones.cutting import cut_classifier
from models.backbones.local_imports import file_digest
from models.backbones.python_file import build_python_classifier
from models.backbones.sources import backbone_fingerprint, find_backbone
from models.backbones.timm_models import build_timm_classifier
from models.core.calling import call
from models.factory import build_classifier, build_parts, build_transfer_parts
from models.students import build_flow_student
from models.weight_names import WeightNames
from pipeline.core.errors import UserError
from pipeline.core.signature import image_input
from pipeline.distillation.frozen_teacher import OUTPUTS, FrozenTeacher
from pipeline.export.onnx.exporter import export_image_network
from pipeline.networks.saved import load_network
from pipeline.networks.spec import NetworkSpec
from pipeline.networks.weights import save_network
from pipeline.runtimes.onnx import OnnxRuntime
from tests.helpers import refused
from tests.test_probe import run_probe
from workbench.bench import Bench

WriteParams = Callable[[dict[str, Any]], Path]
STATISTICS: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv_mobile", "time_scale": 1.0}

BLOCKS = """
from torch import nn

def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
NETWORK = """
from torch import nn
from blocks import block

class Small(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.first, self.second = block(3, 8), block(8, 12)
        self.classifier = nn.Linear(12, num_classes)

    def forward(self, images):
        return self.classifier(self.second(self.first(images)).mean((2, 3)))

def small(num_classes):
    return Small(num_classes)

def by_brightness(num_classes):
    class Choosy(Small):
        def forward(self, images):
            if images.mean() > 0.5:
                images = 1 - images
            return super().forward(images)
    return Choosy(num_classes)

def fails(num_classes):
    return Small(num_classes).nonsense

def leaves(num_classes):
    raise SystemExit(3)

def nothing(num_classes):
    return None

def thousand(num_classes):
    return Small(1000)

def of_size(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size[0] * image_size[1], num_classes))
"""


TRANSFORMER = """
import torch
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.mixed, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        parts = self.mixed(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        return x + self.out(functional.scaled_dot_product_attention(*parts).squeeze(1))

class Transformer(nn.Module):
    def __init__(self, num_classes, image_size, width):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 2, stride=2)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 1 + image_size[0] * image_size[1] // 4, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def tokens(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.places))

    def forward(self, images):
        return self.head(self.tokens(images)[:, 0])

def large(num_classes, image_size):
    return Transformer(num_classes, image_size, 24)

def small(num_classes, image_size):
    return Transformer(num_classes, image_size, 16)
"""


@pytest.fixture
def transformer(tmp_path: Path) -> Path:
    """Return a Python file with functions that make vision transformers with a class token."""
    path = tmp_path / "transformer.py"
    path.write_text(TRANSFORMER)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a Python file with functions that make networks; another lies beside it, which it imports."""
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "net.py").write_text(NETWORK)
    return folder / "net.py"


class Headed(nn.Module):
    """Two stages under a head of whatever kind."""

    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10))
        self.fc = nn.Linear(10, 4)
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """Return logits; a function of PyTorch drops some features in training."""
        x = self.pool(torch.relu_(self.second(self.first(images)))).flatten(1)
        x = nn.functional.dropout(x, 0.5, training=self.training)
        return call(self.fc, x)


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "adaptive_avg_pool2d": lambda x: nn.functional.adaptive_avg_pool2d(x, 1),
    "mean over (2, 3)": lambda x: x.mean((2, 3)),
    "mean over (-2, -1)": lambda x: x.mean(dim=(-2, -1), keepdim=True),
    "mean of the flattened map": lambda x: x.flatten(2).mean(-1),
    "two means": lambda x: x.mean(3).mean(2),
    "avg_pool2d of the whole map": lambda x: nn.functional.avg_pool2d(x, x.shape[-1]),
    "average and largest": lambda x: x.mean((2, 3)) + x.amax((2, 3)),
}


@pytest.mark.parametrize("pool", POOLS)
def test_a_network_is_cut_before_whatever_pools_its_map(pool: str) -> None:
    network = Headed(POOLS[pool])
    backbone, head = cut_classifier(network)
    assert backbone.widths == (6, 10), backbone.why_uncut
    images = torch.rand(2, 3, 32, 32)
    for module in (network, backbone, head):
        module.eval()
    x, maps, copies = images, [], []
    with torch.no_grad():
        for stage in backbone.stages():
            maps.append(x := stage(x))
            copies.append(x.clone())
        assert torch.equal(head(x), network(images))
    assert float(maps[-1].min()) == 0, "the activation belongs to the stage"
    assert all(torch.equal(one, copy) for one, copy in zip(maps, copies, strict=True)), "a stage changed its input"
    assert sum(p.numel() for p in [*backbone.parameters(), *head.parameters()]) == sum(
        p.numel() for p in network.parameters()
    )
    head.train()
    assert not torch.equal(head(x), head(x)), "dropout follows the mode"


class Given(nn.Module):
    """A network that traces badly and says itself where it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList([nn.Conv2d(3, 5, 3, stride=2), nn.Conv2d(5, 7, 3, stride=2)])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4))

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        """Return a module and a function."""
        return [self.body[0], self._second]

    def _second(self, x: Tensor) -> Tensor:
        return call(self.body[1], x * 2 if x.mean() > 0 else x)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        return call(self.head, self._second(self.body[0](images)))


@pytest.mark.parametrize("flag", ["follows", True, False])
def test_the_function_dropout_follows_the_mode_where_the_network_lets_it(flag: object) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 3, 2), nn.Linear(8, 2)

        def forward(self, images: Tensor) -> Tensor:
            x = self.second(call(self.first, images))
            training = self.training if flag == "follows" else bool(flag)
            return call(self.last, nn.functional.dropout(x, 0.5, training=training).mean((2, 3)))

    network = Dropping()
    backbone, head = cut_classifier(network, image_size=(32, 32))
    assert backbone.widths == (8, 8)
    images, again = torch.rand(2, 3, 32, 32), Dropping()
    again.load_state_dict(network.state_dict())
    for mode in (False, True):
        found = []
        for forward in (nn.Sequential(backbone, head), again):
            torch.manual_seed(0)
            found.append(forward.train(mode)(images))
        torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_network_that_gives_its_stages_and_head_is_cut_there() -> None:
    network = Given()
    names = set(network.state_dict())
    backbone, head = cut_classifier(network)
    assert backbone.widths == (5, 7)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(head(backbone(images)), network(images))
    found = {name.removeprefix("parts.0.") for name in backbone.state_dict()} | set(head.state_dict())
    assert found == names, "parameters keep their names"
    network.stages = lambda: [nn.Flatten()]  # type: ignore[method-assign]
    assert cut_classifier(network).backbone.widths == (), "an attribute is no method of the class"


def test_a_stage_that_is_none_is_named() -> None:
    class Flat(Given):
        def stages(self) -> list[Callable[[Tensor], Tensor]]:
            return [self.body[0], nn.Flatten()]

    with pytest.raises(ValueError, match=r"Flat.stages\(\): stage 2 returns \(2, \d+\), not a feature map"):
        cut_classifier(Flat())


def test_a_network_of_a_python_file_is_cut_and_trains(own: Path) -> None:
    name = f"python:{own}:small"
    network = build_classifier(backbone=name, num_classes=5, image_size=(16, 16), **STATISTICS)
    assert network.backbone.widths == (8, 12)
    images = torch.rand(2, 3, 16, 16)
    student = build_flow_student(backbone=name, num_classes=5, image_size=(16, 16), **STATISTICS, **FLOW)
    student(images, 2).sum().backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    sized = build_classifier(backbone=f"python:{own}:of_size", num_classes=5, image_size=(8, 8), **STATISTICS)
    assert sized(torch.rand(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:{folder}/no.py:small", r"no such file: .*/no.py; a relative path counts from /"),
        ("python:{folder}/net.py", r"got 'python:.*/net.py'; give python:FILE.py:FUNCTION"),
        (
            "python:{folder}/net.py:large",
            r"net.py: has no function 'large'; it has block, small, by_brightness, fails,",
        ),
        (
            "python:{folder}/net.py:fails",
            r"net.py, line 26: AttributeError: 'Small' object has no attribute 'nonsense'",
        ),
        ("python:{folder}/net.py:leaves", r"net.py, line 29: SystemExit: 3"),
        ("python:{folder}/net.py:nothing", r"net.py: nothing\(3\) returns NoneType, not a torch.nn.Module"),
        ("python:{folder}/net.py:thousand", r"net.py:thousand returns \(1, 1000\) for one image, not logits \(1, 3\)"),
        ("python:{folder}/broken.py:f", r"broken.py, line 1: "),
        ("python:{folder}/alone.py:f", r"alone.py, line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("pyton:{folder}/net.py:small", r"unknown backbone source 'pyton'; did you mean python\?"),
    ],
)
def test_a_fault_of_a_users_file_is_one_line_with_its_place(name: str, message: str, own: Path) -> None:
    (own.parent / "broken.py").write_text("def f(:\n")
    (own.parent / "alone.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(ValueError, match=message) as error:
        build_parts(name.format(folder=own.parent), 3, (16, 16))
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_no_text_is_named_without_a_line(own: Path) -> None:
    (own.parent / "bytes.py").write_bytes(b"\0")
    with pytest.raises(ValueError, match=r"bytes.py: .*null bytes"):
        file_digest(own.parent / "bytes.py")


def test_each_reason_for_which_a_network_has_no_map_is_said_once(own: Path) -> None:
    (own.parent / "bare.py").write_text("from torch import nn\n\ndef flat(n):\n    return nn.Flatten()\n")
    name = f"python:{own.parent / 'bare.py'}:flat"
    with pytest.raises(ValueError, match=r"nothing in it has weights"):
        build_transfer_parts(name, 48, (4, 4))
    with pytest.raises(ValueError, match=r"cannot be used as inputs to control flow; it still serves") as error:
        build_transfer_parts(f"python:{own}:by_brightness", 3, (16, 16))
    assert str(error.value).count("control flow") == 1


def test_two_files_have_each_its_own_beside_it(own: Path) -> None:
    other = own.parent.parent / "others"
    other.mkdir()
    (other / "net.py").write_text(NETWORK)
    (other / "blocks.py").write_text(BLOCKS.replace("nn.ReLU()", "nn.GELU()"))
    found = []
    for folder in (own.parent, other, own.parent):
        backbone = build_parts(f"python:{folder}/net.py:small", 3).backbone
        found.append(any(isinstance(module, nn.GELU) for module in backbone.modules()))
    assert found == [False, True, False]


def test_bytecode_of_a_version_before_is_not_taken_for_a_file(own: Path) -> None:
    """Python keeps it where the user imports the files; size and second of what is changed at once are the same."""
    package = own.parent / "layers"
    package.mkdir()
    (package / "deep.py").write_text("scale = 1\n")
    changes = {own: ("12", "16"), own.parent / "blocks.py": ("ReLU", "GELU"), package / "deep.py": ("= 1", "= 3")}
    own.write_text(own.read_text() + "\nfrom layers.deep import scale\n\ndef scaled(n):\n    return Small(n * scale)\n")
    for path, (old, new) in changes.items():
        py_compile.compile(str(path))
        second = path.stat().st_mtime
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, (second, second))
    network = build_python_classifier(f"{own}:scaled", 5)
    assert any(isinstance(module, nn.GELU) for module in network.modules())
    assert (network.classifier.in_features, network.classifier.out_features) == (16, 15)


def test_a_network_that_cannot_be_cut_says_why_and_is_a_teacher_all_the_same(own: Path) -> None:
    name = f"python:{own}:by_brightness"
    network = build_classifier(backbone=name, num_classes=3, **STATISTICS)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    why = (
        r"by_brightness.<locals>.Choosy.forward \(net.py:\d+\): symbolically traced variables cannot be used as inputs"
    )
    with pytest.raises(
        ValueError, match=rf"no feature map to transfer, .*: {why}.*; it still serves as a teacher on logits, and as a"
    ):
        build_transfer_parts(name, 3)


def test_code_counts_and_comments_do_not(own: Path) -> None:
    before = file_digest(own)
    beside = own.parent / "blocks.py"
    beside.write_text(beside.read_text() + "\n# a comment\n")
    assert file_digest(own) == before
    (own.parent / "unused.py").write_text("x = 1\n")
    assert file_digest(own) == before
    beside.write_text(beside.read_text().replace("ReLU", "GELU"))
    assert file_digest(own) != before
    assert backbone_fingerprint(f"python:{own}:small") == file_digest(own)
    assert backbone_fingerprint("resnet8") is backbone_fingerprint("timm:resnet18") is None


@pytest.mark.parametrize("words", ["from .. import blocks", "from .......... import blocks"])
def test_an_import_from_above_the_file_which_python_refuses_is_passed_over(
    words: str, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own.parent / "sub").mkdir()
    (own.parent / "sub/net.py").write_text(f"try:\n    {words}\nexcept ImportError:\n    blocks = None\n")
    monkeypatch.chdir(own.parent)
    assert len(file_digest(Path("sub/net.py"))) == 64


def test_a_package_beside_a_file_counts(own: Path) -> None:
    package = own.parent / "layers"
    package.mkdir()
    (package / "__init__.py").write_text("from .deep import scale\n")
    (package / "deep.py").write_text("scale = 1\n")
    own.write_text("import layers\n" + own.read_text())
    before = file_digest(own)
    (package / "deep.py").write_text("scale = 2\n")
    assert file_digest(own) != before


def test_a_saved_network_whose_code_has_changed_or_gone_is_refused(own: Path, tmp_path: Path) -> None:
    spec = NetworkSpec("classifier", {"backbone": f"python:{own}:small", "num_classes": 3, **STATISTICS})
    network = build_classifier(**spec.arguments)
    save_network(tmp_path / "saved", network, spec, about={})
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_network(tmp_path / "saved")[0](images), network.eval()(images))
    text = own.read_text()
    own.write_text(text.replace("mean((2, 3))", "amax((2, 3))"))
    with pytest.raises(UserError, match=r"network.json: the code of 'python:.*net.py:small' has changed since these"):
        load_network(tmp_path / "saved")
    own.unlink()
    with pytest.raises(UserError, match=r"network.json: no such file: .*net.py"):
        load_network(tmp_path / "saved")


def test_weights_of_a_network_that_was_cut_elsewhere_find_their_place(tmp_path: Path) -> None:
    """As of squeezenet1_1, which an earlier version kept whole, as a head."""
    spec = NetworkSpec("classifier", {"backbone": "squeezenet1_1", "num_classes": 3, **STATISTICS})
    network = build_classifier(**spec.arguments).eval()
    save_network(tmp_path, network, spec, about={})
    whole = {re.sub(r"^backbone\.parts\.\d+", "head", name): value for name, value in network.state_dict().items()}
    assert whole.keys() != network.state_dict().keys()
    save_file(whole, tmp_path / "model.safetensors")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(load_network(tmp_path)[0](images), network(images))


def test_the_probe_records_the_users_code_and_refuses_what_cannot_be_built(
    own: Path, tmp_path: Path, params_file: WriteParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # Python's default: what is changed at once stays unseen
    out = tmp_path / "environment.json"
    changes = {"distill_student.backbone": f"python:{own}:small", "prepare_data.image_size": 16}
    assert run_probe(params_file(changes), out).exit_code == 0
    before = json.loads(out.read_text())["inputs"]
    assert before["student_network"] == file_digest(own)
    assert before["teacher_network"] is None
    own.write_text(own.read_text().replace("12", "16"))
    assert run_probe(params_file(changes), out).exit_code == 0
    assert json.loads(out.read_text())["inputs"]["student_network"] == file_digest(own) != before["student_network"]
    own.write_text(own.read_text().replace("return Small(num_classes)", "return Large(num_classes)"))
    refused(run_probe(params_file(changes), out), f"distill_student.backbone: {own}, line 15: NameError: name 'Large'")
    changes["distill_student.backbone"] = f"python:{own}:of_size"
    refused(run_probe(params_file(changes), out), "distill_student.backbone: backbone 'python:")
    assert not list(own.parent.rglob("*.pyc"))


def test_the_probe_builds_a_network_of_one_size_before_that_is_known(
    own: Path, tmp_path: Path, params_file: WriteParams
) -> None:
    changes = {"train_teacher.backbone": f"python:{own}:of_size", "distill_student.allow_larger": True}
    result = run_probe(params_file(changes), tmp_path / "environment.json")
    assert result.exit_code == 0, result.output


def test_images_of_a_size_that_a_network_cannot_take_are_refused_by_the_probe(
    tmp_path: Path, params_file: WriteParams
) -> None:
    changes = {"train_teacher.backbone": "timm:test_vit", "prepare_data.image_size": 8}
    result = run_probe(params_file(changes), tmp_path / "environment.json")
    refused(result, "train_teacher.backbone: cannot take images of 8 x 8 pixels (")
    changes["prepare_data.image_size"] = 32
    assert run_probe(params_file(changes), tmp_path / "environment.json").exit_code == 0


def test_a_student_of_the_users_own_goes_through_the_stages(
    own: Path, tmp_path: Path, params_file: WriteParams
) -> None:
    bench = Bench(tmp_path, params_file)
    bench.prepare()
    changes = {"distill_student.method": "ofm_kt", "distill_student.backbone": f"python:{own}:small"}
    assert bench.distill(changes).exit_code == 0
    assert bench.calibrate(changes).exit_code == 0
    assert bench.json("student/network.json")["own_code"] == file_digest(own)
    own.write_text(own.read_text().replace("mean((2, 3))", "amax((2, 3))"))
    refused(bench.calibrate(changes), "has changed since these weights were made; make them anew (dvc repro)")


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("test_resnet", (32, 32, 48, 192, 96)),
        ("test_efficientnet", (24, 24, 32, 48, 256)),
        ("test_convnext", (24, 32, 48, 64)),
        ("test_nfnet", (64, 128, 64, 96, 192)),
    ],
)
def test_a_cut_timm_network_is_the_whole_one_in_stages(name: str, widths: tuple[int, ...]) -> None:
    network = build_classifier(backbone=f"timm:{name}", num_classes=3, image_size=(64, 64), **STATISTICS).eval()
    whole = build_timm_classifier(name, 3, (64, 64)).eval()
    state = network.state_dict()
    names = WeightNames(network)
    own = {published: names.find(published) for published in whole.state_dict()}
    assert {*own.values()} == state.keys()
    whole.load_state_dict({published: state[mine] for published, mine in own.items()})
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), whole(network.normalize(images)))
        maps = network.feature_maps(images)
    assert tuple(x.shape[1] for x in maps) == network.backbone.widths == widths


@pytest.mark.parametrize(("name", "prefixed"), [("test_vit", 1), ("test_vit2", 1), ("test_vit_relpos", 0)])
@torch.no_grad()
def test_a_vision_transformer_is_whole_or_ends_in_its_tokens_as_a_map(name: str, prefixed: int) -> None:
    whole = build_timm_classifier(name, 3, (48, 48)).eval()
    images = torch.rand(2, 3, 48, 48)
    parts = build_parts(f"timm:{name}", 3, (48, 48))
    assert parts.backbone.widths == ()
    parts.head.load_state_dict(whole.state_dict())
    assert torch.equal(parts.head.eval()(images), whole(images)), "as published"
    backbone, head = build_transfer_parts(f"timm:{name}", 3, (48, 48))
    own = {key.removeprefix("parts.0."): key for key in backbone.state_dict()}
    backbone.load_state_dict({key: whole.state_dict()[name] for name, key in own.items()})
    tokens = whole.forward_features(images)  # type: ignore[operator]
    assert tokens.shape[1] == prefixed + 9
    x = backbone.eval()(images)
    assert x.shape == (2, tokens.shape[2], 3, 3)
    for row in range(3):
        for column in range(3):
            torch.testing.assert_close(x[:, :, row, column], tokens[:, prefixed + 3 * row + column])
    assert head(x).shape == (2, 3)


def on_tokens(path: Path, **changes: Any) -> dict[str, Any]:
    """Return what transfers the tokens of a vision transformer to a smaller one, and its logits beside them."""
    return {
        "train_teacher.backbone": f"python:{path}:large",
        "distill_student.backbone": f"python:{path}:small",
        "distill_student.transfer": "features",
        "distill_student.loss": "pkd",
        "distill_student.feature_pairs": [[1, 1]],
        "distill_student.logit_loss.weight": 1.0,
        **{f"distill_student.{key}": value for key, value in changes.items()},
    }


@torch.no_grad()
def test_a_vision_transformer_teaches_its_last_tokens_and_its_own_logits(transformer: Path) -> None:
    name = f"python:{transformer}:large"
    network = build_classifier(backbone=name, num_classes=3, image_size=(8, 8), **STATISTICS).eval()
    images = torch.rand(2, 3, 8, 8)
    logits, whole = network(images), network.head
    tokens = whole.tokens(network.normalize(images))  # type: ignore[operator]
    feature_map, outputs = FrozenTeacher(network, [1, OUTPUTS])(images)
    torch.testing.assert_close(outputs, logits)
    assert feature_map.shape == (2, 24, 4, 4)
    torch.testing.assert_close(feature_map.flatten(2).mT, tokens[:, 1:])
    torch.testing.assert_close(FrozenTeacher(network, [1])(images)[0], feature_map)
    assert torch.equal(network(images), logits), "it stays as it was"


@pytest.mark.slow
def test_tokens_are_transferred_through_the_stages(transformer: Path, tmp_path: Path, params_file: WriteParams) -> None:
    bench, changes = Bench(tmp_path, params_file), on_tokens(transformer)
    bench.prepare()
    probed = run_probe(params_file(changes), tmp_path / "probed.json")
    assert probed.exit_code == 0, probed.output
    assert bench.teach(changes).exit_code == 0
    for command in (bench.distill, bench.calibrate, bench.trace, bench.export):
        result = command(changes)
        assert result.exit_code == 0, result.output
    assert bench.json("student/network.json")["teacher_stages"] == [1, OUTPUTS]
    flows = (tmp_path / "likelihood.csv").read_text().splitlines()[1:]
    assert {line.partition(",")[0] for line in flows} == {"stage 1"}
    plain = on_tokens(transformer, method="metric")
    result = bench.distill(plain)
    assert result.exit_code == 0, result.output
    refused(bench.distill(on_tokens(transformer, feature_pairs=[[1, 3]])), "no stage 3; its stages: 1 (24 channels)")


def test_a_network_that_shows_no_feature_map_is_refused_with_the_reason(
    own: Path, transformer: Path, tmp_path: Path, params_file: WriteParams
) -> None:
    changes = on_tokens(transformer) | {"train_teacher.backbone": f"python:{own}:by_brightness"}
    result = run_probe(params_file(changes), tmp_path / "environment.json")
    refused(result, "distill_student.transfer: got features, but the network shows no feature map (")
    assert "set it to logits, or choose another backbone" in result.output


@torch.no_grad()
def test_tokens_that_lie_as_a_map_become_one() -> None:
    """Swin's are (B, H, W, C)."""
    name = "swin_tiny_patch4_window7_224"
    backbone, _ = build_transfer_parts(f"timm:{name}", 3, (64, 64))
    whole = build_timm_classifier(name, 3, (64, 64)).eval()
    own = {key.removeprefix("parts.0."): key for key in backbone.state_dict()}
    backbone.load_state_dict({key: whole.state_dict()[name] for name, key in own.items()})
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(backbone.eval()(images), whole.forward_features(images).permute(0, 3, 1, 2))  # type: ignore[operator]


@pytest.mark.slow
def test_a_vision_transformer_as_a_student_trains_and_exports(tmp_path: Path) -> None:
    student = build_flow_student(backbone="timm:test_vit", num_classes=3, image_size=(32, 32), **STATISTICS, **FLOW)
    images = torch.rand(2, 3, 32, 32)
    student(images, 2).sum().backward()
    without = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    assert without == []
    network = student.eval().without_flows()
    export_image_network(
        network, tmp_path / "m.onnx", image_input((32, 32), "float32"), ["logits"], opset=20, metadata={}
    )
    with torch.no_grad():
        expected = network(images).numpy()
    found = OnnxRuntime(tmp_path / "m.onnx").infer(images.numpy())["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(expected.std()) + 1e-6)


def test_a_typo_in_a_timm_name_has_the_nearest_ones() -> None:
    with pytest.raises(ValueError, match=r"^unknown network of timm 'resnet19'; did you mean resnet18 or .*known$"):
        find_backbone("timm:resnet19")
    with pytest.raises(ValueError, match=r"^unknown backbone 'resnetv3_50'; .* known, others as timm:NAME, .*$"):
        find_backbone("resnetv3_50")
    with pytest.raises(ValueError, match=r"^unknown backbone 'test_vit'; did you mean (.* or )?timm:test_vit"):
        find_backbone("test_vit")
    assert find_backbone("torchvision:resnet18").source is find_backbone("resnet18").source


def test_without_timm_its_networks_are_refused_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ValueError, match=r"timm is not installed; pip install -e '.\[timm\]' does it, and so does make"
    ):
        build_timm_classifier("test_vit", 3)
