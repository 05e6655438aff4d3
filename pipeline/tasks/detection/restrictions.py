"""What of the parameters a detector cannot have."""

from collections.abc import Iterator

from models.detection.detectors import DETECTORS
from pipeline.tasks.restrictions import Restriction

TRANSFERRING = ("fm_kt", "metric", "metric_meta")
"""Methods that transfer what is chosen."""
USES = "fm_kt, metric, metric_meta or none"


def _of_training(section: str) -> Iterator[Restriction]:
    """Yield what the training of a network must not change."""
    mixed = "boxes of mixed images mean nothing"
    for name in ("mixup_alpha", "cutmix_alpha"):
        yield Restriction(key=f"{section}.training.augment.{name}", reason=mixed)
    yield Restriction(
        key=f"{section}.training.augment.trivial_augment", reason="its turns and shears do not carry boxes along"
    )
    yield Restriction(
        key=f"{section}.training.augment.scale_jitter",
        matters_with={"prepare_data.storage": ("packed",)},
        reason="images are scaled while they are decoded for training",
        advice="set it to null, or prepare_data.storage to index",
    )
    focal = "a detector's classes are learned by a focal loss, place by place, which has no such thing"
    for name in ("label_smoothing", "class_weights"):
        yield Restriction(key=f"{section}.training.{name}", reason=focal)


RESTRICTIONS = (
    Restriction(
        key="prepare_data.known_size",
        shown_as="prepare_data.image_size",
        refused=(None,),
        reason="images with objects are brought to one size, which a detector is built for",
        advice="give a number of pixels or [height, width], e.g. 640 or [480, 640]",
    ),
    Restriction(
        key="distill_student.method",
        refused=("ofm_kt",),
        reason="a detector has no logits of an image whose mean its steps could follow",
        advice=f"use {USES}",
    ),
    Restriction(
        key="distill_student.method",
        refused=("fm_kt_theta",),
        reason="what a plain head would follow is a flow at the end, and a detector's flows are at its levels",
        advice=f"use {USES}",
    ),
    Restriction(
        key="distill_student.transfer",
        refused=("logits", "features_and_logits"),
        matters_with={"distill_student.method": TRANSFERRING},
        reason="what a detector transfers are the levels of its pyramid",
        advice="set it to features, and distill_student.loss to pkd or mse",
    ),
    Restriction(
        key="distill_student.logit_loss.weight",
        matters_with={"distill_student.method": TRANSFERRING, "distill_student.transfer": ("features",)},
        reason="a detector has no logits of an image to compare: its classes are of places, which the levels lead to",
    ),
    Restriction(
        key="distill_student.detector.kind",
        refused=tuple(name for name, entry in DETECTORS.items() if not entry.deploys),
        reason="it can teach, and not be deployed",
        advice=f"use {' or '.join(name for name, entry in DETECTORS.items() if entry.deploys)}",
    ),
    Restriction(key="train_teacher.classes", reason="a detector's outputs are chosen by the data's category ids"),
    Restriction(
        key="train_teacher.is_program",
        shown_as="train_teacher.backbone",
        refused=(True,),
        reason="a program shows no feature maps to learn from",
        advice="take a teacher of this pipeline's backbones",
    ),
    *_of_training("train_teacher"),
    *_of_training("distill_student"),
)
