"""Batches of packed images: order, augmentation, mixing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as reference

from pipeline.data.augmentation import Augment, Batch, build_mix, crop_and_mirror, jitter_colors
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import PackedBatches, ordered_batches

CPU = torch.device("cpu")
PLAIN: dict[str, Any] = {"crop_padding": 0, "horizontal_flip": False, "color_jitter": 0.0}
UNMIXED = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0}


def make_images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, 3, 5, 4), generator=generator, dtype=torch.uint8)


def packed(split: Split, batch_size: int, **augment: Any) -> PackedBatches:
    options = PLAIN | UNMIXED | augment
    return PackedBatches(split, batch_size=batch_size, device=CPU, num_classes=16, augment=options)


def test_an_epoch_takes_every_image_once_and_leaves_out_an_incomplete_batch() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2)
    batches = packed(Split(images, torch.arange(10)), 4)
    drawn = list(batches.epoch(0))
    assert len(drawn) == len(batches) == 2
    labels = torch.cat([batch.labels for batch in drawn])
    assert len(labels.unique()) == 8
    assert all((b.images * 255 == b.labels[:, None, None, None]).all() for b in drawn)
    assert not torch.equal(labels, torch.cat([batch.labels for batch in batches.epoch(1)]))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in drawn)


def test_a_split_smaller_than_a_batch_makes_one_batch() -> None:
    assert [len(b.labels) for b in packed(Split(make_images(6), torch.arange(6)), 64).epoch(0)] == [6]


def test_ordered_batches_cover_everything_in_order() -> None:
    split = Split(make_images(10), torch.arange(10))
    batches = list(ordered_batches(split, 4, CPU))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), split.images.float() / 255)


def test_the_seed_fixes_order_and_augmentation() -> None:
    split = Split(make_images(12), torch.arange(12))
    batches = packed(split, 4, crop_padding=2, horizontal_flip=True, color_jitter=0.4)
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
    draws = Augment(crop_padding=2, horizontal_flip=True, color_jitter=0.4).draw(4000, 0, CPU)
    assert sorted({tuple(offset) for offset in draws.offsets.tolist()}) == [(r, c) for r in range(5) for c in range(5)]
    assert 0.45 < draws.mirrored.float().mean() < 0.55
    assert 0.6 <= draws.jitter.min() < 0.61
    assert 1.39 < draws.jitter.max() <= 1.4
    assert not Augment(**PLAIN).draw(100, 0, CPU).mirrored.any()


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
    mixed = mix(Batch(images.clone(), labels))
    assert mixed.soft_targets is not None
    torch.testing.assert_close(mixed.soft_targets.sum(dim=1), torch.ones(16))
    expected = (mixed.soft_targets * torch.arange(16) / 16).sum(dim=1)
    torch.testing.assert_close(mixed.images.mean(dim=(1, 2, 3)), expected)
    assert (mixed.soft_targets > 0).sum() == 32
    assert torch.equal(mixed.labels, mixed.soft_targets.argmax(dim=1))


def test_nothing_is_mixed_unless_it_is_asked_for() -> None:
    assert build_mix(mixup_alpha=0.0, cutmix_alpha=0.0, num_classes=3) is None
    split = Split(make_images(4), torch.arange(4))
    assert next(packed(split, 4).epoch(0)).soft_targets is None
    assert next(packed(split, 4, mixup_alpha=0.2).epoch(0)).soft_targets is not None
