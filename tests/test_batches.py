"""Batches of packed images: order, augmentation, mixing."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as reference

from pipeline.data.augmentation import Augmentation, crop_and_mirror, erase, jitter_colors
from pipeline.data.batch import Batch, Mix
from pipeline.data.dataset import DataInfo, Split
from pipeline.data.packed_batches import PackedBatches, ordered_batches
from pipeline.data.packed_crops import crop_boxes, resized_crops
from pipeline.data.settings import Augment
from pipeline.data.trivial_augment import FARTHEST, OPERATIONS, trivial_augment
from pipeline.tasks.classification.targets import ClassTargets, class_targets
from pipeline.tasks.classification.training import ClassificationTraining, build_mix

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {"crop_padding": 0, "horizontal_flip": False, "color_jitter": 0.0}


def make_images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, 3, 5, 4), generator=generator, dtype=torch.uint8)


def make_split(count: int) -> Split:
    return Split(make_images(count), ClassTargets(torch.arange(count)))


def packed(split: Split, batch_size: int, mix: Mix | None = None, **changes: Any) -> PackedBatches:
    order = {name: changes.pop(name) for name in ("min_steps", "leaves_none_out") if name in changes}
    augmentation = Augmentation(**PLAIN | changes)
    return PackedBatches(split, batch_size=batch_size, device=CPU, augmentation=augmentation, mix=mix, **order)


def labels_of(batch: Batch) -> Tensor:
    return class_targets(batch).labels


def test_an_epoch_takes_every_image_once_and_leaves_out_an_incomplete_batch() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2)
    batches = packed(Split(images, ClassTargets(torch.arange(10))), 4)
    drawn = list(batches.epoch(0))
    assert len(drawn) == len(batches) == 2
    labels = torch.cat([labels_of(batch) for batch in drawn])
    assert len(labels.unique()) == 8
    assert all((b.images * 255 == labels_of(b)[:, None, None, None]).all() for b in drawn)
    assert not torch.equal(labels, torch.cat([labels_of(batch) for batch in batches.epoch(1)]))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in drawn)


def test_a_split_smaller_than_a_batch_makes_one_batch() -> None:
    assert [len(batch.targets) for batch in packed(make_split(6), 64).epoch(0)] == [6]


def test_few_images_are_passed_over_until_an_epoch_has_its_steps() -> None:
    batches = packed(make_split(10), 4, min_steps=5)
    labels = torch.stack([labels_of(batch) for batch in batches.epoch(0)])
    assert len(batches) == len(labels) == 6, "two batches a pass, so three passes"
    passes = labels.reshape(3, 8)
    assert all(len(one.unique()) == 8 for one in passes), "no image twice in a pass"
    assert not torch.equal(passes[0], passes[1])
    alone = torch.cat([labels_of(batch) for batch in packed(make_split(10), 4).epoch(0)])
    assert torch.equal(passes[0], alone), "the first pass is that of an epoch of one"


@pytest.mark.parametrize(("min_steps", "steps"), [(1, 3), (5, 8)])
def test_an_epoch_that_comes_again_leaves_no_image_out(min_steps: int, steps: int) -> None:
    batches = packed(make_split(10), 4, min_steps=min_steps, leaves_none_out=True)
    labels = torch.cat([labels_of(batch) for batch in batches.epoch(0)])
    assert len(batches) == steps
    assert len(labels) == 4 * steps
    assert all(len(one.unique()) == 10 for one in labels.split(10) if len(one) == 10), "a whole pass after the other"
    whole = packed(make_split(8), 4, leaves_none_out=True), packed(make_split(8), 4)
    assert len({len(each) for each in whole}) == 1, "nothing is left over, so nothing changes"


def test_ordered_batches_cover_everything_in_order() -> None:
    split = make_split(10)
    batches = list(ordered_batches(split, 4, CPU))
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert torch.cat([labels_of(batch) for batch in batches]).tolist() == list(range(10))
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), split.images.float() / 255)


def test_the_seed_fixes_order_and_augmentation() -> None:
    batches = packed(make_split(12), 4, crop_padding=2, horizontal_flip=True, color_jitter=0.4)
    one, again, other = ([batch.images for batch in batches.epoch(seed)] for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_crops_are_windows_of_the_padded_image_in_either_direction() -> None:
    images = make_images(64)
    generator = torch.Generator().manual_seed(0)
    offsets = torch.randint(0, 5, (64, 2), generator=generator)
    mirrored = torch.rand(64, generator=generator) < 0.5
    shown = crop_and_mirror(images.permute(0, 2, 3, 1), offsets, mirrored, padding=2).permute(0, 3, 1, 2)
    padded = nn.functional.pad(images, (2, 2, 2, 2))
    for i in range(64):
        row, column = offsets[i].tolist()
        window = padded[i, :, row : row + 5, column : column + 4]
        assert torch.equal(shown[i], window.flip(2) if mirrored[i] else window)


def test_draws_cover_all_windows_and_mirror_half_of_the_images() -> None:
    draws = Augmentation(crop_padding=2, horizontal_flip=True, color_jitter=0.4).draw(4000, 0, CPU)
    assert sorted({tuple(offset) for offset in draws.offsets.tolist()}) == [(r, c) for r in range(5) for c in range(5)]
    assert 0.45 < draws.mirrored.float().mean() < 0.55
    assert 0.6 <= draws.jitter.min() < 0.61
    assert 1.39 < draws.jitter.max() <= 1.4
    assert not Augmentation(**PLAIN).draw(100, 0, CPU).mirrored.any()


def test_colours_change_as_torchvision_changes_them() -> None:
    images = make_images(8).float() / 255
    factors = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    changed = jitter_colors(images, factors)
    for i, (brightness, contrast, saturation) in enumerate(factors.tolist()):
        expected = reference.adjust_brightness(images[i], brightness)
        expected = reference.adjust_saturation(reference.adjust_contrast(expected, contrast), saturation)
        torch.testing.assert_close(changed[i], expected, atol=2e-4, rtol=0)  # torchvision rounds its grey weights


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_mixed_images_are_labelled_by_their_shares(mixup: float, cutmix: float) -> None:
    """Image k is filled with k / 16, so that the shares of its neighbour can be read from its pixels."""
    torch.manual_seed(0)
    mix = build_mix(mixup_alpha=mixup, cutmix_alpha=cutmix, num_classes=16)
    assert mix is not None
    labels = torch.arange(16)
    images = (labels / 16.0)[:, None, None, None].expand(16, 3, 8, 8)
    mixed = mix(Batch(images.clone(), ClassTargets(labels)))
    shares = class_targets(mixed).soft_targets
    assert shares is not None
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(16))
    expected = (shares * torch.arange(16) / 16).sum(dim=1)
    torch.testing.assert_close(mixed.images.mean(dim=(1, 2, 3)), expected)
    assert (shares > 0).sum() == 32
    assert torch.equal(labels_of(mixed), shares.argmax(dim=1))


def test_nothing_is_mixed_unless_it_is_asked_for() -> None:
    info = DataInfo("classification", tuple("abcd"), (5, 4), (0.5,) * 3, (0.25,) * 3, "none", "packed")
    assert ClassificationTraining().build_mix(Augment(), info) is None
    assert class_targets(next(packed(make_split(4), 4).epoch(0))).soft_targets is None
    mix = ClassificationTraining().build_mix(Augment(mixup_alpha=0.2), info)
    mixed = class_targets(next(packed(make_split(4), 4, mix).epoch(0)))
    assert mixed.soft_targets is not None
    assert mixed.soft_targets.shape == (4, 4)


def test_targets_of_some_images_keep_labels_and_shares_together() -> None:
    targets = ClassTargets(torch.arange(6), torch.eye(6))
    chosen = targets.select(torch.tensor([4, 1])).to(CPU)
    assert chosen.labels.tolist() == [4, 1]
    assert chosen.soft_targets is not None
    assert torch.equal(chosen.soft_targets, torch.eye(6)[[4, 1]])
    assert targets.select(slice(2, 4)).truth()["labels"].tolist() == [2, 3]


def test_a_spread_selection_runs_from_the_first_to_the_last_image() -> None:
    assert make_split(10).spread(4).targets.truth()["labels"].tolist() == [0, 3, 6, 9]
    assert len(make_split(3).spread(4)) == 3


def torchvisions(name: str, image: Tensor, strength: float) -> Tensor:
    """Return what torchvision makes of ``image`` (3, H, W), uint8."""
    factor = 1 + 0.99 * strength
    changes: dict[str, Any] = {
        "identity": lambda: image,
        "brightness": lambda: reference.adjust_brightness(image, factor),
        "color": lambda: reference.adjust_saturation(image, factor),
        "contrast": lambda: reference.adjust_contrast(image, factor),
        "sharpness": lambda: reference.adjust_sharpness(image, factor),
        "posterize": lambda: reference.posterize(image, 8 - round(abs(strength) * 6)),
        "solarize": lambda: reference.solarize(image, 255 * (1 - abs(strength))),
        "autocontrast": lambda: reference.autocontrast(image),
        "equalize": lambda: reference.equalize(image),
        "rotate": lambda: reference.rotate(image, 135 * strength),
        "translate_x": lambda: reference.affine(image, 0, [-int(FARTHEST * strength), 0], 1, [0, 0]),
        "translate_y": lambda: reference.affine(image, 0, [0, -int(FARTHEST * strength)], 1, [0, 0]),
        "shear_x": lambda: reference.affine(image, 0, [0, 0], 1, [math.degrees(math.atan(0.99 * strength)), 0]),
        "shear_y": lambda: reference.affine(image, 0, [0, 0], 1, [0, math.degrees(math.atan(0.99 * strength))]),
    }
    shown: Tensor = changes[name]()
    return shown


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_trivial_augment_are_torchvisions(name: str) -> None:
    """Within a level of 255; where pixels move, a hundredth of them may lie on the border between two."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 8, 9, generator=generator)
    smooth = nn.functional.interpolate(coarse, (40, 48), mode="bilinear")
    images = (smooth * 200 + 20).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    strengths = torch.tensor([1 / 3, -0.6, 1.0])
    numbers = torch.full((3,), list(OPERATIONS).index(name))
    changed = trivial_augment(images, numbers, strengths)
    for image, strength, found in zip(images, strengths.tolist(), changed, strict=True):
        expected = torchvisions(name, image.permute(2, 0, 1), strength).permute(1, 2, 0)
        apart = (found.int() - expected.int()).abs() > 1
        assert apart.float().mean() < (0.02 if name in {"rotate", "shear_x", "shear_y"} else 1e-9)
        assert name == "identity" or not torch.equal(found, image)


def test_trivial_augment_and_erasing_are_fixed_by_the_seed_and_change_each_image_alone() -> None:
    split = Split(make_images(64).repeat(1, 1, 8, 8), ClassTargets(torch.arange(64)))
    batches = packed(split, 64, trivial_augment=True, random_erasing=0.5)
    (one,), (again,), (other,) = (list(batches.epoch(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    (plain,) = packed(split, 64).epoch(0)
    changed = (one.images != plain.images).flatten(1).any(dim=1).float().mean()
    assert 0.8 < changed <= 1


def test_erased_parts_have_the_share_and_the_colour_that_they_should() -> None:
    images = torch.rand(400, 3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.5
    draws = torch.rand(400, 5, generator=torch.Generator().manual_seed(1))
    erased = erase(images, draws, 0.25, (0.7, 0.8, 0.9))
    gone = (erased != images).all(dim=1)
    shares = gone.float().mean(dim=(1, 2))
    hit = shares > 0
    assert 0.18 < hit.float().mean() < 0.32
    assert shares[hit].min() > 0.01
    assert shares[hit].max() < 0.37
    assert torch.equal(erased.permute(0, 2, 3, 1)[gone].unique(dim=0), torch.tensor([[0.7, 0.8, 0.9]]))
    for image in gone[hit]:
        rows, columns = image.any(dim=1), image.any(dim=0)
        assert torch.equal(image, rows[:, None] & columns), "a rectangle"
    assert torch.equal(erased[~hit], images[~hit])


def test_trivial_augment_with_colour_jitter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"color_jitter: got 0.4, and trivial_augment changes colours already"):
        Augment(trivial_augment=True, color_jitter=0.4)


@pytest.mark.parametrize("box", [(0, 0, 12, 10), (3, 2, 6, 5), (7, 1, 5, 9)])
def test_a_packed_crop_is_torchvisions(box: tuple[int, int, int, int]) -> None:
    left, top, wide, tall = box
    pixels = torch.randint(0, 256, (2, 10, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[left / 12, top / 10, wide / 12, tall / 10]]).expand(2, 4)
    images = pixels.permute(0, 3, 1, 2).float()
    expected = reference.resized_crop(images, top, left, tall, wide, [10, 12], antialias=False)
    found = resized_crops(pixels, boxes).permute(0, 3, 1, 2).float()
    inside = slice(2, -2)  # near the edge of a part, this sees what lies beside it
    assert (found - expected)[..., inside, inside].abs().max() <= 0.51, "rounding"


def test_boxes_have_the_shares_that_are_asked_for_and_lie_in_the_image() -> None:
    draws = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    left, top, wide, tall = crop_boxes(draws, (0.25, 0.5)).unbind(dim=1)
    area, ratio = wide * tall, wide / tall
    assert 0.25 - 1e-6 <= area.min() < area.max() <= 0.5 + 1e-6
    assert ratio.min().item() == pytest.approx(3 / 4, abs=1e-3)
    assert ratio.max().item() == pytest.approx(4 / 3, abs=1e-3)
    assert area.mean().item() == pytest.approx(0.375, abs=2e-3)
    for start, length in ((left, wide), (top, tall)):
        assert start.min() >= 0
        assert (start + length).max() <= 1 + 1e-6


def test_packed_images_are_cut_where_a_scale_is_given() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(6, 3, 8, 64)  # each column its own value
    split = Split(ramp.contiguous(memory_format=torch.channels_last), ClassTargets(torch.arange(6)))
    (whole,), (cut,) = packed(split, 6).epoch(0), packed(split, 6, crop_scale=(0.1, 0.3)).epoch(0)
    assert torch.equal(whole.images.mul(255).round()[0, 0, 0], torch.arange(64.0))
    spans = cut.images.amax(dim=(1, 2, 3)) - cut.images.amin(dim=(1, 2, 3))  # of the values, so of the columns
    assert (spans * 255 / 64 < 0.7).all()
    assert len(spans.unique()) > 1, "each image has a part of its own"
    assert cut.images.is_contiguous(memory_format=torch.channels_last)
