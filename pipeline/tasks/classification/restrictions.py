"""What of the parameters a classifier cannot have."""

from pipeline.tasks.restrictions import Restriction

OF_DETECTORS = "the images of prepare_data.source have one class each, and no objects to find"

RESTRICTIONS = (
    Restriction(
        key="prepare_data.sides",
        shown_as="prepare_data.image_size",
        reason="images that have one class become square",
        advice="give one number of pixels",
    ),
    *(
        Restriction(
            key=f"{section}.training.augment.scale_jitter",
            reason="images that have one class are not padded",
            advice="set it to null, and use resized_crop_scale",
        )
        for section in ("train_teacher", "distill_student")
    ),
    Restriction(key="train_teacher.detector", reason=OF_DETECTORS),
    Restriction(key="distill_student.detector", reason=OF_DETECTORS),
    Restriction(key="detections", reason=OF_DETECTORS),
    Restriction(
        key="distill_student.method",
        refused=("metric_meta",),
        matters_with={"distill_student.transfer": ("features",)},
        reason="a classifier has the meta-encoder's layers at its end, where no feature map follows",
        advice="use fm_kt or metric or none, or set transfer to logits",
    ),
)
