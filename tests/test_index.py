"""Large images: an index of files, decoded and cut by worker processes."""

import gc
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor

from pipeline.core.errors import LostProcessError, UserError
from pipeline.core.processes import num_cores
from pipeline.data.augmentation import Augmentation
from pipeline.data.batch import Batch
from pipeline.data.dataset import ImageIndex, read_index, read_info
from pipeline.data.decoding import central_square
from pipeline.data.index_readers import SquareReader
from pipeline.data.loaders import open_training_batches
from pipeline.data.reading import Fit, read_images
from pipeline.data.settings import Augment
from pipeline.data.streamed_batches import StreamedBatches
from pipeline.tasks.classification.targets import class_targets
from pipeline.tasks.classification.training import ClassificationTraining
from pipeline.tasks.data import open_data
from tests.helpers import ROOT, image_bytes, refused
from workbench.bench import Bench

Prepare = Callable[..., Result]
CPU = torch.device("cpu")
SHARED_MEMORY = "/dev/shm"  # noqa: S108  (a name to look for)
READ_TARGETS = ClassificationTraining().read_targets
AUGMENT: dict[str, Any] = {"crop_padding": 0, "horizontal_flip": False, "color_jitter": 0.0}
SIZES = [(40, 30), (30, 40), (64, 20), (17, 17), (90, 120)]
INDEX = {"storage": "index", "image_size": 16}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of JPEG files of mixed sizes and modes, with a test split."""
    for number, name in enumerate(("train/cat", "train/dog", "test/cat", "test/dog")):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for i in range(20 if name.startswith("train") else 3):
            mode = ("RGB", "L", "CMYK")[i % 3]
            options: dict[str, Any] = {"size": SIZES[i % len(SIZES)], "mode": mode, "kind": "JPEG"}
            (folder / f"{i:03}.jpg").write_bytes(image_bytes(**options, seed=100 * number + i))
    return tmp_path / "images"


def index_of(folder: Path) -> ImageIndex:
    return read_index(folder, READ_TARGETS)


def files_of(index: ImageIndex) -> list[str]:
    return [index.files.name(position) for position in range(len(index.files))]


def labels_of(index: ImageIndex) -> list[int]:
    labels: list[int] = index.targets.truth()["labels"].tolist()
    return labels


def batches(
    folder: Path, *, num_workers: int = 1, crop_scale: tuple[float, float] | None = None, **augment: Any
) -> StreamedBatches:
    index = index_of(folder)
    return StreamedBatches(
        index,
        read=SquareReader(index, crop_scale),
        batch_size=8,
        device=CPU,
        num_workers=num_workers,
        augmentation=Augmentation(**AUGMENT | augment),
        mix=None,
    )


def children() -> set[int]:
    """Return the processes that this one has started."""
    return {int(number) for number in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


def pixels(drawn: list[Batch]) -> Tensor:
    return torch.cat([batch.images for batch in drawn])


def test_an_index_names_the_training_files_and_packs_the_other_splits(
    images: Path, prepare: Prepare, tmp_path: Path
) -> None:
    assert prepare(images, **INDEX).exit_code == 0
    out = tmp_path / "out"
    index, info = index_of(out), read_info(out)
    assert (index.files.root, index.fit.size, info.storage) == (str(images), (16, 16), "index")
    assert len(index.files) == 34
    files = files_of(index)
    assert all(
        (images / file).parent.name == ("cat", "dog")[label]
        for file, label in zip(files, labels_of(index), strict=True)
    )
    assert [open_data(out).split(name).images.shape for name in ("calib", "test")] == [(6, 3, 16, 16), (6, 3, 16, 16)]
    shown = [central_square(np.asarray(Image.open(images / f).convert("RGB")), 16) for f in files]
    digest = hashlib.sha256(b"".join((images / file).read_bytes() for file in files)).hexdigest()
    assert json.loads((out / "data.json").read_text())["files_sha256"] == digest
    assert info.mean == pytest.approx((np.stack(shown) / 255).mean(axis=(0, 1, 2)).tolist(), abs=1e-6)


def test_an_epoch_decodes_every_image_once_whatever_the_number_of_workers(
    images: Path, prepare: Prepare, tmp_path: Path
) -> None:
    prepare(images, **INDEX)
    out = tmp_path / "out"
    random: dict[str, Any] = {"crop_scale": (0.2, 1.0), "horizontal_flip": True, "color_jitter": 0.3}
    here, there = (list(batches(out, num_workers=n, **random).epoch(0)) for n in (1, 3))
    assert [len(batch.targets) for batch in here] == [8] * 4
    assert torch.equal(pixels(here), pixels(there))
    assert not torch.equal(pixels(here), pixels(list(batches(out, **random).epoch(1))))
    whole = list(batches(out).epoch(0))
    index = index_of(out)
    expected = {
        central_square(np.asarray(Image.open(images / f).convert("RGB")), 16).tobytes(): label
        for f, label in zip(files_of(index), labels_of(index), strict=True)
    }
    shown = (pixels(whole) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    found = [expected.pop(image.contiguous().numpy().tobytes()) for image in shown]
    assert found == torch.cat([class_targets(batch).labels for batch in whole]).tolist()
    assert len(expected) == 2, "what makes no whole batch is left out"


def test_decoding_leaves_trainings_random_numbers_alone(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    prepare(images, **INDEX)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    list(batches(tmp_path / "out", crop_scale=(0.2, 1.0)).epoch(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_change_outside_the_central_square_changes_the_index(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    file = images / "train/cat/000.jpg"
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    found = []
    for edge in (0, 255):
        picture[:, :4] = edge
        Image.fromarray(picture).save(file.with_suffix(".png"))
        file.unlink(missing_ok=True)
        prepare(images, **INDEX)
        found.append(json.loads((tmp_path / "out/data.json").read_text()))
    assert found[0]["mean"] == found[1]["mean"]
    assert found[0]["files_sha256"] != found[1]["files_sha256"]


def test_random_crops_are_parts_of_the_image_of_the_given_share(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    """Of images whose red is the column and whose green is the row, a crop shows which part it is."""
    ramp = np.zeros((100, 100, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100), np.arange(100)[:, None]
    for file in images.glob("train/*/*.jpg"):
        Image.fromarray(ramp).save(file.with_suffix(".png"))
        file.unlink()
    prepare(images, **INDEX)
    shown = pixels(list(batches(tmp_path / "out", crop_scale=(0.25, 0.5)).epoch(0))) * 255
    width = (shown[:, 0, :, -1] - shown[:, 0, :, 0]).mean(dim=1) * 16 / 15
    height = (shown[:, 1, -1] - shown[:, 1, 0]).mean(dim=1) * 16 / 15
    share = width * height / 1e4
    assert share.min() > 0.2
    assert share.max() < 0.55
    assert share.std() > 0.03
    assert (width / height).min() > 0.7
    assert (width / height).max() < 1.45


@pytest.mark.parametrize("storage", ["index", "packed"])
def test_truncated_files_stop_or_are_left_out_and_counted(
    storage: str, images: Path, prepare: Prepare, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train/cat/001.jpg", "train/dog/007.jpg", "test/cat/000.jpg"):
        path = images / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    changes = {"storage": storage, "image_size": 16}
    refused(prepare(images, **changes), "damaged or truncated image", "repair or remove", ".jpg")
    with caplog.at_level(logging.WARNING):
        result = prepare(images, unreadable="skip", **changes)
    assert result.exit_code == 0, result.output
    assert "test/cat/000.jpg: damaged or truncated image" in result.output
    about = json.loads((tmp_path / "out/data.json").read_text())
    assert sum(about["skipped"].values()) == 3
    assert about["skipped"]["test"] == 1
    assert sum(about["sizes"].values()) == 46 - 3
    assert "left out 1 of 6 images" in result.output
    packed = open_data(tmp_path / "out").split("test")
    assert len(packed.images) == len(packed.targets) == about["sizes"]["test"] == 5


def test_a_class_of_which_nothing_can_be_read_is_named(images: Path, prepare: Prepare) -> None:
    for file in images.glob("train/dog/*.jpg"):
        file.write_bytes(b"?")
    refused(prepare(images, unreadable="skip", **INDEX), "train: no image of class 'dog' can be read")


def test_an_index_needs_a_directory_and_a_size(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    refused(prepare(images, storage="index"), "prepare_data", "storage index needs image_size")
    refused(prepare(tmp_path / "images.tar", **INDEX), "storage index needs files")
    refused(prepare(None, "digits", **INDEX), "storage index needs files")


def test_a_split_smaller_than_a_batch_makes_one_batch(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    prepare(images, **INDEX)
    augment = Augment(crop_padding=0)
    batches = open_training_batches(
        tmp_path / "out", READ_TARGETS, batch_size=64, augment=augment, mix=None, device=CPU
    )
    assert [len(batch.targets) for batch in batches.epoch(0)] == [34]


def test_images_smaller_than_the_shifts_of_trivial_augment_are_refused(
    images: Path, prepare: Prepare, tmp_path: Path
) -> None:
    prepare(images, **INDEX)
    augment = Augment(trivial_augment=True)
    with pytest.raises(UserError, match=r"augment.trivial_augment: moves images by up to 32 pixels.*16 x 16"):
        open_training_batches(tmp_path / "out", READ_TARGETS, batch_size=8, augment=augment, mix=None, device=CPU)


def test_many_files_are_read_by_processes_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for i in range(40):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(image_bytes()[:60] if i == 5 else image_bytes(seed=i))
    names = [file.name for file in files]
    alone = list(read_images(names, files, Fit((4, 4))))
    monkeypatch.setattr("pipeline.data.reading.CHUNK", 3)
    monkeypatch.setattr("pipeline.data.reading.FEW", 10)
    monkeypatch.setattr("pipeline.data.reading.num_cores", lambda: 2)
    together = list(read_images(names, files, Fit((4, 4))))
    assert isinstance(together[5], UserError)
    assert str(together[5]) == str(alone[5])
    for one, other in zip(alone[:5] + alone[6:], together[:5] + together[6:], strict=True):
        np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]


def test_stages_train_on_an_index_and_name_a_file_that_is_gone(
    images: Path, prepare: Prepare, tmp_path: Path, params_file: Callable[[dict[str, Any]], Path]
) -> None:
    prepare(images, **INDEX)
    bench = Bench(tmp_path, params_file)
    shutil.move(tmp_path / "out", tmp_path / "data")
    changes: dict[str, Any] = {"prepare_data.source": "imagefolder", "prepare_data.root": str(images)}
    changes |= {f"prepare_data.{key}": value for key, value in INDEX.items()}
    for section in ("train_teacher", "distill_student"):
        changes[f"{section}.training.augment.resized_crop_scale"] = [0.3, 1.0]
        changes[f"{section}.training.augment.mixup_alpha"] = 0.2
        changes[f"{section}.training.batch_size"] = 8
    result = bench.teach(changes)
    assert result.exit_code == 0, result.output
    assert bench.distill(changes).exit_code == 0
    assert "train_accuracy" in (tmp_path / "student.csv").read_text()
    file = files_of(index_of(tmp_path / "data"))[3]
    (images / file).unlink()
    refused(bench.teach({**changes, "base.seed": 1}), file, "cannot be read")


def test_a_file_that_holds_something_else_ends_the_training(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    """Also where its size and its time are as before."""
    prepare(images, **INDEX)
    drawn = batches(tmp_path / "out")
    list(drawn.epoch(0))
    file = images / files_of(index_of(tmp_path / "out"))[3]
    before, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=rf"{file.name}: has changed since prepare_data has read it; run that again"):
        list(drawn.epoch(1))
    prepare(images, unreadable="skip", **INDEX)
    assert list(batches(tmp_path / "out").epoch(1))
    file.write_bytes(content + b"more")
    with pytest.raises(UserError, match=rf"{file.name}: has changed since"):
        list(batches(tmp_path / "out").epoch(1))


def test_copies_and_touched_files_are_the_same_index(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    """No training runs again for times, which every copy has others of."""
    prepare(images, **INDEX)
    index = (tmp_path / "out/train.index.safetensors").read_bytes()
    for file in images.rglob("*.jpg"):
        os.utime(file, (0, 0))
    assert len(list(batches(tmp_path / "out").epoch(1))) == 4
    prepare(images, **INDEX)
    assert (tmp_path / "out/train.index.safetensors").read_bytes() == index


def test_processes_live_as_long_as_the_batches_and_go_on_after_an_epoch_that_was_left(
    images: Path, prepare: Prepare, tmp_path: Path
) -> None:
    prepare(images, **INDEX)
    others = children()
    drawn = batches(tmp_path / "out", num_workers=2, crop_scale=(0.2, 1.0))
    whole = pixels(list(drawn.epoch(3)))
    ours = children() - others
    assert len(ours) == 2
    next(drawn.epoch(4))
    assert torch.equal(pixels(list(drawn.epoch(3))), whole)
    assert children() - others == ours
    del drawn
    gc.collect()
    assert not children() - others


def test_a_killed_process_ends_the_training_in_one_line(images: Path, prepare: Prepare, tmp_path: Path) -> None:
    prepare(images, **INDEX)
    others = children()
    drawn = batches(tmp_path / "out", num_workers=2)
    list(drawn.epoch(0))
    process = (children() - others).pop()
    os.kill(process, signal.SIGKILL)
    while not Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].startswith(" Z"):
        time.sleep(0.01)
    with pytest.raises(LostProcessError, match=r"decodes training images was ended by signal 9 \(Killed\)"):
        list(drawn.epoch(1))


def test_a_killed_reader_ends_prepare_data_in_one_line(
    images: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.data.reading.FEW", 10)
    monkeypatch.setattr("pipeline.data.reading.num_cores", lambda: 2)
    monkeypatch.setattr("pipeline.data.reading.decode_shown", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    result = prepare(images, **INDEX)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith("error: a process that reads images was killed")


def open_files(process: str) -> set[str]:
    """Return what the files are that ``process`` has open, those that it has inherited among them."""
    return {str(link.readlink()) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()}


def test_decoding_takes_nothing_of_the_memory_that_containers_keep_small(
    images: Path, prepare: Prepare, tmp_path: Path
) -> None:
    prepare(images, **INDEX)
    others, inherited = children(), open_files("self")
    drawn = batches(tmp_path / "out", num_workers=2)
    list(drawn.epoch(0))
    for process in children() - others:
        maps = Path(f"/proc/{process}/maps").read_text().splitlines()
        ends = [line.split()[0].split("-") for line in maps if SHARED_MEMORY in line]
        assert sum(int(end, 16) - int(start, 16) for start, end in ends) < 2**16, "semaphores of other libraries"
        assert not [name for name in open_files(str(process)) - inherited if SHARED_MEMORY in name]


@pytest.mark.slow
def test_a_million_files_take_little_memory_for_all_processes(tmp_path: Path) -> None:
    """Of 100,000 files, which is a thirteenth of ImageNet: what three processes hold beside what they hold of few."""
    program = """
import os, sys
from pathlib import Path
import numpy as np, torch
from pipeline.data.augmentation import Augmentation
from pipeline.data.dataset import ImageIndex
from pipeline.data.file_list import FileList
from pipeline.data.image_bytes import State
from pipeline.data.index_readers import SquareReader
from pipeline.data.reading import Fit
from pipeline.data.streamed_batches import StreamedBatches
from pipeline.tasks.classification.targets import ClassTargets

def held():
    processes = [os.getpid(), *map(int, Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())]
    lines = "".join(Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))

root, count = Path(sys.argv[1]), int(sys.argv[2])
(root / "n01440764").mkdir(exist_ok=True)
(root / "n01440764/n01440764_00000001.JPEG").write_bytes(Path(sys.argv[3]).read_bytes())
file = root / "n01440764/n01440764_00000001.JPEG"
one = FileList.of(root, {file: State.of(file.read_bytes())})
files = FileList(one.root, np.tile(one.paths, count), np.arange(1, count + 1) * len(one.paths),
                 np.tile(one.sizes, count), np.tile(one.sums, count))
index = ImageIndex(files, ClassTargets(torch.zeros(count, dtype=torch.int64)), Fit((8, 8)))
batches = StreamedBatches(index, batch_size=64, device=torch.device("cpu"), num_workers=2,
                          read=SquareReader(index, (0.5, 1.0)),
                          augmentation=Augmentation(crop_padding=0, horizontal_flip=True, color_jitter=0.0), mix=None)
epoch = batches.epoch(0)
for _ in range(30):
    next(epoch)
print(held())
"""
    image = tmp_path / "image.jpg"
    image.write_bytes(image_bytes(kind="JPEG"))
    few, many = (
        int(subprocess.run([sys.executable, "-c", program, tmp_path, str(count), image], capture_output=True, text=True,
                           check=True, cwd=ROOT).stdout)
        for count in (2_000, 102_000)
    )  # fmt: skip
    assert (many - few) / 100_000 * 1.3e6 < 300_000, "kB for ImageNet's 1.3 million"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/a/b\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "99900000 100000\n"}, None),
        (
            "5:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        (
            "5:cpu,cpuacct:/docker/x\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
    ],
)
def test_a_quota_of_a_container_bounds_the_processes(
    groups: str, files: dict[str, str], quota: int | None, tmp_path: Path
) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert num_cores(tmp_path) == (len(os.sched_getaffinity(0)) if quota is None else quota)
