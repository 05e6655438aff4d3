"""Weights of torchvision's published detectors in ours: the same answers at all places."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import detection

from models.detection.building import build_detector
from models.detection.published import COCO_IDS, NUM_OUTPUTS, PUBLISHED, own_names
from models.detections import Detections
from pipeline.training.network_settings import DetectorSettings
from pipeline.training.teacher_settings import TrainTeacher
from tests.toy_detectors import TRAINING

SIZE = 128


def answers(model: Any, images: Tensor) -> dict[str, Tensor]:
    """Return what the head of torchvision's detector says of a normalised batch."""
    found: dict[str, Tensor] = model.head(list(model.backbone(images).values()))
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_give_the_published_answers(name: str) -> None:
    torch.manual_seed(0)
    published = PUBLISHED[name]
    model: Any = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=7).eval()
    classes = 6 if published.detector == "faster_rcnn" else 7
    ours = build_detector(
        backbone=published.backbone, num_classes=classes, image_size=(SIZE, SIZE), mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225], detector=published.detector, levels=published.levels, extra=published.extra,
    ).eval()  # fmt: skip
    state, own = model.state_dict(), ours.state_dict()
    for key, value in state.items():
        if key.endswith(("running_var", "weight")) and value.dim() == 1:
            value.uniform_(0.5, 1.5)
    renamed = own_names(published.detector, list(state), list(own))
    assert renamed.keys() == state.keys()
    missing = own.keys() - set(renamed.values())
    assert {key.rpartition(".")[2] for key in missing} <= {"num_batches_tracked"}
    ours.load_state_dict({renamed[key]: value for key, value in state.items()}, strict=False)
    images = torch.rand(1, 3, SIZE, SIZE)
    normalised = ours.normalize(images)
    with torch.no_grad():
        if published.detector == "faster_rcnn":
            levels = list(model.backbone(normalised).values())
            for one, other in zip(ours.feature_maps(images), levels, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
            assert ours(images).detect(Detections(score_threshold=0.0))[1].shape == (1, 100, 4)
            return
        expected = answers(model, normalised)
        for tensor, wanted in zip(ours(images).tensors, expected.values(), strict=True):
            torch.testing.assert_close(tensor, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("other", [{"levels": (2, 3, 4, 5)}, {"extra": "pool"}, {"width": 128}, {"num_convs": 2}])
def test_a_detector_of_another_form_is_not_taken_for_the_published_one(other: dict[str, Any]) -> None:
    own = TrainTeacher(backbone="resnet50")
    assert TRAINING.published_names(own) == ["fcos_resnet50_fpn"]
    changed = own.model_copy(update={"detector": DetectorSettings(**other)})
    assert TRAINING.published_names(changed) == []


def test_the_categories_of_coco_are_those_that_torchvision_names() -> None:
    names = detection.FCOS_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    known = [i for i, name in enumerate(names) if name not in {"__background__", "N/A"}]
    assert list(COCO_IDS) == known
    assert len(names) == NUM_OUTPUTS
