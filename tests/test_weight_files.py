"""Weights as trainers in the field save them: containers, names, companions, and files that are none."""

import argparse
import collections
import io
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import densenet121, googlenet, mobilenet_v3_small, resnet18

from models.factory import build_classifier
from models.students import (
    build_feature_flow_student,
    build_flow_student,
    build_layered_classifier,
)
from pipeline.core.errors import UserError
from pipeline.networks.checkpoint import read_checkpoint
from pipeline.networks.weights import load_weights, read_weights

STATISTICS: dict[str, Any] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
FLOW: dict[str, Any] = {"schedule": "rectified", "meta_encoder": "conv", "time_scale": 1.0}
State = dict[str, Tensor]


def network(num_classes: int = 3, backbone: str = "resnet8_x0_25", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_classifier(backbone=backbone, num_classes=num_classes, **STATISTICS)


def published(num_classes: int = 3, backbone: str = "resnet8_x0_25", seed: int = 1) -> State:
    """Return weights with the names of the CRD protocol."""
    state = network(num_classes, backbone, seed).state_dict()
    return {name.replace("head.linear.", "fc.").removeprefix("backbone."): value for name, value in state.items()}


def behind(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def averaged(state: State) -> State:
    return {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}


def taken(path: Path, target: nn.Module, state: State, **options: Any) -> list[str]:
    """Load ``path`` into ``target``, compare with ``state`` of published names, and return the lines of the log."""
    lines = load_weights(target, read_weights(path), **options)
    own = target.state_dict()
    for name, value in state.items():
        mine = "head.linear." + name.removeprefix("fc.") if name.startswith("fc.") else "backbone." + name
        torch.testing.assert_close(own[mine], value.to(own[mine].dtype), rtol=0, atol=0)
    return lines


class Settings(dict[str, object]):
    """As configurations of many trainers: derived from a dictionary, with attributes of its own."""


class Options(list[int]):
    """Derived from a list."""


CONTAINERS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "ordered": collections.OrderedDict,
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "loss": 0.1},
    "net": lambda state: {"net": behind("module.", state), "acc": 93.1},
    "network": lambda state: {"network": state},
    "teacher": lambda state: {"teacher": state, "student": {"weight": torch.ones(2, 2)}},
    "two deep": lambda state: {"checkpoint": {"model": state}, "meta": {"epoch": 1}},
    "three deep": lambda state: {"ckpt": {"trainer": {"weights": state}}},
    "compiled": lambda state: behind("_orig_mod.", state),
    "compiled in DDP": lambda state: {"model": behind("module._orig_mod.", state)},
    "DDP in compiled": lambda state: {"model": behind("_orig_mod.module.", state)},
    "Lightning": lambda state: {"state_dict": behind("model.", state), "hyper_parameters": {"lr": 0.1}},
    "Lightning with a loss": lambda state: {
        "state_dict": behind("net.", state) | {"criterion.weight": torch.ones(3), "accuracy.tp": torch.ones(3)}
    },
    "backbone": lambda state: behind("backbone.", state),
    "encoder and wrappers": lambda state: behind("student._model.module.encoder.", state),
    "compiled inside": lambda state: {name.replace("layer1.", "layer1._orig_mod."): x for name, x in state.items()},
    "parallel inside": lambda state: {name.replace("layer2.", "layer2.module."): x for name, x in state.items()},
    "wrapped in Sequential": lambda state: behind("1.", state),
    "counters of thop": lambda state: state | {"layer1.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "averaged model": lambda state: {"n_averaged": torch.tensor(7)} | behind("module.", state),
    "auxiliary head": lambda state: state | {"fc_aux.weight": torch.ones(3, 9), "aux1.conv.weight": torch.ones(2, 2)},
    "old PyTorch": lambda state: {name: x for name, x in state.items() if "num_batches" not in name},
    "parameters": lambda state: {name: nn.Parameter(x) if x.is_floating_point() else x for name, x in state.items()},
    "head apart": lambda state: {
        "backbone": {name: x for name, x in state.items() if not name.startswith("fc.")},
        "head": {name: x for name, x in state.items() if name.startswith("fc.")},
    },
    "head of another prefix": lambda state: {
        ("head." if name.startswith("fc.") else "backbone.") + name: x for name, x in state.items()
    },
    "Namespace": lambda state: {"model": state, "args": argparse.Namespace(model="resnet8", lr=0.1)},
    "NumPy numbers": lambda state: {"model": state, "best": np.float64(91.0), "n": np.int64(3), "a": np.zeros((2, 2))},
    "paths and dtypes": lambda state: {
        "model": state,
        "path": pathlib.PurePosixPath("a/b"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "set": {1, 2},
        "frozen": frozenset({1}),
        "counts": collections.Counter("aab"),
        "default": collections.defaultdict(list, a=[1]),
        "deque": collections.deque([1, 2]),
        "complex": 1j,
        "slice": slice(1, 2),
    },
    "unknown classes": lambda state: {"model": state, "config": Settings(lr=0.1), "options": Options([1, 2])},
    "class in its place": lambda state: Settings(model=state, epoch=1),
    "arrays": lambda state: {name: x.numpy() for name, x in state.items()},
    "optimizer": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    },
}


@pytest.mark.parametrize("form", CONTAINERS)
@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "old"])
def test_weights_are_found_in_whatever_they_are_saved(form: str, is_old: bool, tmp_path: Path) -> None:
    state = published()
    torch.save(CONTAINERS[form](state), tmp_path / "w.pth", _use_new_zipfile_serialization=not is_old)
    taken(tmp_path / "w.pth", network(), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in published().items()}
    torch.save(state, tmp_path / "w.pth")
    taken(tmp_path / "w.pth", network(), state)


@pytest.mark.parametrize("prefix", ["", "model.", "module._orig_mod."])
def test_a_format_is_told_by_its_content(prefix: str, tmp_path: Path) -> None:
    state = published()
    save_file(behind(prefix, state), tmp_path / "w.bin", metadata={"format": "pt", "arch": "resnet8"})
    taken(tmp_path / "w.bin", network(), state)
    torch.save(behind(prefix, state), tmp_path / "w.safetensors")
    taken(tmp_path / "w.safetensors", network(), state)


def test_names_of_older_numpy_are_read(tmp_path: Path) -> None:
    """NumPy 1 called its module numpy.core; the file is written by hand as that would."""
    torch.save({"model": published(), "best": np.float64(91.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as archive, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for member in archive.infolist():
            content = archive.read(member)
            assert b"numpy._core" in content or "data.pkl" not in member.filename
            old.writestr(member, content.replace(b"numpy._core", b"numpy.core"))
    assert read_checkpoint(tmp_path / "old.pth").facts["best"] == 91.5
    taken(tmp_path / "old.pth", network(), published())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_gives_its_weights_without_running(tmp_path: Path) -> None:
    whole = resnet18(num_classes=3).eval()
    torch.jit.script(whole).save(tmp_path / "scripted.pt")
    target = network(backbone="resnet18")
    load_weights(target, read_weights(tmp_path / "scripted.pt"))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        normalised = target.normalize(images)  # type: ignore[operator]
        torch.testing.assert_close(target.eval()(images), whole(normalised), rtol=1e-4, atol=1e-5)


def test_of_a_moving_average_and_its_origin_the_average_is_taken_and_both_are_named(tmp_path: Path) -> None:
    state = published()
    torch.save({"state_dict": state, "state_dict_ema": averaged(state)}, tmp_path / "w.pth")
    line, *_ = taken(tmp_path / "w.pth", network(), averaged(state))
    assert "of state_dict_ema; state_dict would fit as well: weights_entry: state_dict takes that" in line
    target = network()
    load_weights(target, read_weights(tmp_path / "w.pth", entry="state_dict"))
    torch.testing.assert_close(target.state_dict()["head.linear.weight"], state["fc.weight"])
    with pytest.raises(
        UserError, match=r"w.pth: has no weights under 'ema'; it has them under state_dict_ema, state_d"
    ):
        read_weights(tmp_path / "w.pth", entry="ema")


def test_a_moving_average_in_the_same_dictionary_is_told_by_its_prefix(tmp_path: Path) -> None:
    state = published()
    torch.save({"state_dict": behind("model.", state) | behind("ema_model.", averaged(state))}, tmp_path / "w.ckpt")
    line, *_ = taken(tmp_path / "w.ckpt", network(), averaged(state))
    assert "begin with ema_model.; state_dict.model would fit as well: weights_entry: state_dict.model" in line
    target = network()
    load_weights(target, read_weights(tmp_path / "w.ckpt", entry="state_dict.model"))
    torch.testing.assert_close(target.state_dict()["head.linear.weight"], state["fc.weight"])


def test_an_average_that_does_not_fit_gives_way(tmp_path: Path) -> None:
    state = published()
    torch.save({"model": state, "ema": {"shadow": {"fc.weight": torch.ones(7, 7)}}}, tmp_path / "w.pth")
    taken(tmp_path / "w.pth", network(), state)


def test_what_is_not_taken_is_named(tmp_path: Path) -> None:
    torch.save(behind("model.", published()) | {"loss.weight": torch.ones(2, 2)}, tmp_path / "w.pth")
    assert taken(tmp_path / "w.pth", network(), published())[-1] == "not taken of the file: loss.weight"


def test_a_head_of_other_classes_is_refused_or_made_anew(tmp_path: Path) -> None:
    state = published(num_classes=5)
    torch.save({"model": behind("module.", state)}, tmp_path / "w.pth")
    refusal = (
        r"w.pth, model: the weights do not fit .*: 2 of another shape \(module.fc.weight: \(5, 16\) where \(3, 16\)"
    )
    with pytest.raises(UserError, match=refusal):
        load_weights(network(), read_weights(tmp_path / "w.pth"))
    target = network()
    fresh = target.state_dict()["head.linear.weight"].clone()
    backbone = {name: value for name, value in state.items() if not name.startswith("fc.")}
    lines = taken(tmp_path / "w.pth", target, backbone, new_head=True)
    assert "module.fc.weight: 5 classes in the file, 3 here: made anew" in lines
    torch.testing.assert_close(target.state_dict()["head.linear.weight"], fresh)
    torch.save(backbone, tmp_path / "headless.pth")
    with pytest.raises(UserError, match=r"2 missing \(head.linear.weight, head.linear.bias\)"):
        load_weights(network(), read_weights(tmp_path / "headless.pth"))
    lines = taken(tmp_path / "headless.pth", network(), backbone, new_head=True)
    assert lines[-1].endswith("head.linear.weight, head.linear.bias: not in the file: made anew")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits_are_taken(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in published().items()}
    torch.save(state, tmp_path / "w.pth")
    load_weights(target := network(), read_weights(tmp_path / "w.pth"))
    assert all(value.isfinite().all() for value in target.state_dict().values())


def test_numbers_that_no_float32_has_are_not_finite(tmp_path: Path) -> None:
    torch.save(published() | {"fc.bias": torch.tensor([1e300, 0, 0], dtype=torch.float64)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth: fc.bias is not finite"):
        load_weights(network(), read_weights(tmp_path / "w.pth"))


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_compressed_member_is_refused(kind: int, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "packed.pth", "w", kind) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
        item = next(item for item in archive.infolist() if item.filename.endswith("data.pkl"))
    content = bytearray((tmp_path / "packed.pth").read_bytes())
    for start in (5, 20, item.compress_size // 2):
        place = item.header_offset + 30 + len(item.filename) + start
        content[place : place + 8] = b"\xff\x00\xff\x00\xff\x00\xff\x00"
    (tmp_path / "packed.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"packed.pth: (no readable weights|cannot be read \(Invalid data stream)"):
        read_weights(tmp_path / "packed.pth")


def test_a_number_in_the_place_of_a_heads_weights_is_one_of_another_shape(tmp_path: Path) -> None:
    torch.save(published() | {"fc.bias": torch.tensor(0.5)}, tmp_path / "w.pth")
    lines = load_weights(network(), read_weights(tmp_path / "w.pth"), new_head=True)
    assert "fc.bias: () in the file, (3,) here: made anew" in lines


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_library_warns_nobody_of_protocols(protocol: int, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "w.pth", pickle_protocol=protocol)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken(tmp_path / "w.pth", network(), published())


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize("new_head", [False, True])
def test_weights_of_a_deeper_network_do_not_fit_a_shallower_one(prefix: str, new_head: bool, tmp_path: Path) -> None:
    deeper = published(backbone="resnet20")
    torch.save(behind(prefix, deeper), tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=rf"\d+ unknown \({prefix}layer1.1.*fmkt inspect-weights .*w.pth says what fits"
    ):
        load_weights(network(backbone="resnet8"), read_weights(tmp_path / "w.pth"), new_head=new_head)


def test_weights_of_another_kind_of_network_are_refused_with_both_sides_names(tmp_path: Path) -> None:
    torch.save({"vit.embeddings.cls_token": torch.ones(1, 1, 8), "vit.q.weight": torch.ones(8, 8)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"none of its names \(vit.embed.*\) is one of the network's \(.*conv1.weight"):
        load_weights(network(), read_weights(tmp_path / "w.pth"), new_head=True)


def test_students_take_backbone_and_classifier_and_keep_their_flow(tmp_path: Path) -> None:
    state = published()
    torch.save(state, tmp_path / "w.pth")
    arguments: dict[str, Any] = {"backbone": "resnet8_x0_25", "num_classes": 3, **STATISTICS}
    students = {
        "flow.transform.linear.weight": build_flow_student(**arguments, **FLOW),
        "head.linear.weight": build_feature_flow_student(**arguments, stages=[1], **FLOW),
        "head.transform.linear.weight": build_feature_flow_student(**arguments, stages=[1], to_logits=True, **FLOW),
        "head.1.linear.weight": build_layered_classifier(**arguments, layers="conv"),
    }
    for head, student in students.items():
        with pytest.raises(UserError, match=r"\d+ missing \((flow|head)"):
            load_weights(student, read_weights(tmp_path / "w.pth"))
        lines = load_weights(student, read_weights(tmp_path / "w.pth"), new_head=True)
        assert "not in the file: made anew" in lines[-1]
        own = student.state_dict()
        torch.testing.assert_close(own[head], state["fc.weight"])
        torch.testing.assert_close(own["backbone.layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_a_head_of_several_layers_stays_out_of_a_students_pooled_classifier(tmp_path: Path) -> None:
    whole = mobilenet_v3_small(num_classes=3).state_dict()
    torch.save(whole, tmp_path / "w.pth")
    student = build_flow_student(backbone="mobilenet_v3_small", num_classes=3, **STATISTICS, **FLOW)
    lines = load_weights(student, read_weights(tmp_path / "w.pth"), new_head=True)
    assert any("not taken of the file: classifier.3.weight, classifier.3.bias" in line for line in lines)
    plain = network(backbone="mobilenet_v3_small", num_classes=5)
    lines = load_weights(plain, read_weights(tmp_path / "w.pth"), new_head=True)
    assert [line for line in lines if "anew" in line] == [
        f"classifier.3.{part}: 3 classes in the file, 5 here: made anew" for part in ("weight", "bias")
    ]
    torch.testing.assert_close(plain.state_dict()["head.classifier.0.weight"], whole["classifier.0.weight"])


def test_published_names_of_densenet_and_auxiliary_heads_are_understood(tmp_path: Path) -> None:
    whole = densenet121(num_classes=3).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): value for name, value in whole.items()}
    assert set(old) != set(whole)
    torch.save(old, tmp_path / "dense.pth")
    target = network(backbone="densenet121")
    load_weights(target, read_weights(tmp_path / "dense.pth"))
    names = {re.sub(r"^(backbone\.parts\.\d+|head)\.", "", name): value for name, value in target.state_dict().items()}
    assert all(torch.equal(names[name], value) for name, value in whole.items())
    torch.save(googlenet(num_classes=3, init_weights=False).state_dict(), tmp_path / "aux.pth")
    *_, last = load_weights(network(backbone="googlenet"), read_weights(tmp_path / "aux.pth"))
    assert last.startswith("not taken of the file: aux1.conv.conv.weight, ")


@pytest.mark.slow
def test_a_whole_module_is_refused_with_the_line_that_saves_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for content, keys in ((network(), ""), ({"model": network(), "epoch": 1}, "['model']")):
        torch.save(content, path)
        with pytest.raises(UserError, match=r"holds a whole pickled module \(models.classifier.Classifier\)") as caught:
            read_weights(path)
        assert f"weights_only=False){keys}.state_dict(), 'state_dict.pth')" in str(caught.value)
        line = str(caught.value).partition("python -c ")[2].strip('"')
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        subprocess.run([sys.executable, "-c", line], check=True, cwd=tmp_path, env=environment)
        load_weights(network(), read_weights(tmp_path / "state_dict.pth"))


class Harmful:
    """Does harm when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "old"])
@pytest.mark.parametrize(
    "call",
    [
        (os.system, "touch harmed"),
        (eval, "open('harmed', 'w')"),
        (exec, "open('harmed', 'w')"),
        (subprocess.Popen, ["touch", "harmed"]),
        (Path.touch, Path("harmed")),
        (getattr, Path("harmed"), "touch"),
        (open, "harmed", "w"),
        (torch.save, {}, "harmed"),
        (__import__, "antigravity"),
    ],
    ids=lambda call: f"{call[0].__module__}.{call[0].__qualname__}",
)
def test_nothing_of_a_file_is_run(
    call: tuple[Any, ...], is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside good weights, and in their place: the weights are read, or the file is refused; nothing happens."""
    monkeypatch.chdir(tmp_path)
    for content in ({"state_dict": published(), "extra": Harmful(*call)}, {"state_dict": Harmful(*call)}):
        torch.save(content, "w.pth", _use_new_zipfile_serialization=not is_old)
        before = set(sys.modules)
        is_blocked = call[0] in (os.system, Path.touch) or "extra" not in content
        with pytest.raises(UserError, match=r"w.pth: no readable weights") if is_blocked else nullcontext():
            taken(Path("w.pth"), network(), published())
        assert not Path("harmed").exists()
        assert "antigravity" not in set(sys.modules) - before


def test_stand_ins_are_forgotten_after_a_file(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"model": published(), "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    read_weights(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(tmp_path / "w.pth", weights_only=True)


def other_files() -> dict[str, tuple[bytes, str]]:
    arrays, archive, keras, packed = (io.BytesIO() for _ in range(4))
    np.savez(arrays, a=np.ones(3))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("weights/model.pth", b"?")
    with zipfile.ZipFile(keras, "w") as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, b"?")
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.addfile(tarfile.TarInfo("model.pth"))
    return {
        "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer.*git lfs pull"),
        "page": (b"<!DOCTYPE html><html>404</html>", "a web page or XML.*download it again"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5, as Keras"),
        "gguf": (b"GGUF\x03" + bytes(40), "GGUF"),
        "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "TensorFlow Lite"),
        "onnx": (b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0" + bytes(40), "ONNX"),
        "flax": (b"\x82\xa6params\x81\xa4conv" + bytes(40), "msgpack, as Flax"),
        "npz": (arrays.getvalue(), r"NumPy arrays \(.npz\)"),
        "keras": (keras.getvalue(), r"a Keras model \(.keras\)"),
        "zip": (archive.getvalue(), "a zip archive of other files, which holds weights/model.pth; unpack it first"),
        "tar": (packed.getvalue(), "a tar archive; unpack it first .*holds model.pth"),
        "gzip": (b"\x1f\x8b\x08" + bytes(40), "gzip-compressed; unpack it first"),
        "pickle": (pickle.dumps({"a": [1, 2]}), "a pickle, but torch.save has not written this file"),
        "shards": (json.dumps({"weight_map": {"a": "1.safetensors"}}).encode(), "the index of a network in several"),
        "cut": (b"\x40\0\0\0\0\0\0\0{" + bytes(10), "safetensors that are damaged or cut off"),
    }


@pytest.mark.parametrize("form", other_files())
def test_a_file_that_holds_no_weights_is_said_to_be_what_it_is(form: str, tmp_path: Path) -> None:
    content, words = other_files()[form]
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(
        UserError, match=rf"w.pth: no readable weights \({words}.*; give a .safetensors file or a state"
    ):
        read_weights(tmp_path / "w.pth")


def test_counters_that_were_averaged_to_floats_are_taken(tmp_path: Path) -> None:
    state = published()
    average = {f"module.{name}": value.float() for name, value in averaged(state).items()}
    torch.save({"model": state, "model_ema": average}, tmp_path / "w.pth")
    line, *_ = taken(tmp_path / "w.pth", network(), averaged(state))
    assert "of model_ema; model would fit as well" in line


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w.pth: no readable weights \(a pipe or a device\)"):
        read_weights(tmp_path / "w.pth")


def test_a_folder_is_answered_with_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"a folder; give one of its files: model.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "old"])
def test_a_file_that_is_cut_off_is_refused(share: float, is_old: bool, tmp_path: Path) -> None:
    torch.save({"model": published()}, tmp_path / "w.pth", _use_new_zipfile_serialization=not is_old)
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"w.pth: no readable weights"):
        read_weights(tmp_path / "w.pth")


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"?")
        archive.writestr("w/data/0", bytes(2**25))
    with pytest.raises(UserError, match=r"a compressed archive that would unpack to 0.0 GiB"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "lr": 0.1}, "something else than named tensors; its keys: epoch, lr"),
        ([1, 2], "something else than named tensors; no dictionary"),
        ({"ema": {"decay": 0.9, "shadow_params": [torch.ones(2)]}}, "1 tensors without names under ema.shadow_params"),
        ({"a\x1b[1m\0": 1}, r"its keys: a\\x1b\[1m\\x00"),
        ({"cfg": argparse.Namespace(a=1)}, "it names argparse.Namespace, which are not loaded"),
    ],
)
def test_a_file_without_named_tensors_says_what_it_has(content: object, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=words):
        read_weights(tmp_path / "w.pth")
