"""The model card: Markdown made of recorded facts alone."""

import json
from string import Template

from pipeline.files import Json

TEMPLATE = """\
# $name

$description

| | student (this package) | teacher |
|---|---|---|
| top-1 accuracy, $num_images test images | $accuracy | $teacher_accuracy |
| parameters | $num_parameters | $teacher_parameters |
| negative log-likelihood, nats | $nll | |
| expected calibration error, 15 bins | $ece | |

Backbone `$backbone`, method `$method`, images of $image_size pixels, $num_classes classes.
Sampling steps: $num_steps ($reason).
`model.onnx` (opset $opset) differs from the trained network by at most $max_abs in a logit over the test split,
and agrees with it on the label of $agreement of the images.

## Use it

```python
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

preprocessing = json.load(open("preprocessing.json"))
labels = json.load(open("labels.json"))["labels"]
height, width = preprocessing["image_size"]

image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")
scale = max(width / image.width, height / image.height)  # cover the input, then cut out the centre
covering = max(width, round(image.width * scale)), max(height, round(image.height * scale))
image = image.resize(covering, Image.Resampling.BICUBIC)
left, top = (image.width - width) // 2, (image.height - height) // 2
image = image.crop((left, top, left + width, top + height))
pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, H, W), RGB in [0, 1]
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {"image": pixels})[0]
print(labels[int(logits.argmax())])
```

Normalisation is inside the graph.
`sha256sum -c SHA256SUMS` tells whether the package is whole.

## Calibration of the sampling steps

On images held out from training, not on the test images above.

| steps | accuracy | negative log-likelihood | calibration error | multiply-adds |
|---|---|---|---|---|
$steps

## Written with

$versions

Method: Shao, Shen, Gong, Chen, Dai, "Precise Knowledge Transfer via Flow Matching", arXiv 2402.02012.
"""


def model_card(facts: Json) -> str:
    """Return the card for ``facts``: name, description, metadata, manifest, metrics and calibration of the package."""
    metadata, manifest, calibration = facts["metadata"], facts["manifest"], facts["calibration"]
    student, teacher = facts["metrics"]["student"], facts["metrics"]["teacher"]
    accuracy = teacher.get("test_accuracy")
    return Template(TEMPLATE).substitute(
        name=facts["name"],
        description=facts["description"],
        backbone=metadata["backbone"],
        method=metadata["method"],
        num_steps="none" if calibration["num_steps"] is None else calibration["num_steps"],
        reason=calibration["reason"],
        num_classes=len(json.loads(metadata["classes"])),
        image_size=" x ".join(map(str, manifest["image_size"])),
        num_images=student["num_images"],
        accuracy=f"{student['accuracy']:.2%}",
        nll=f"{student['nll']:.4f}",
        ece=f"{student['ece']:.4f}",
        num_parameters=f"{student['num_parameters']:,}",
        teacher_accuracy="no teacher" if accuracy is None else f"{accuracy:.2%}",
        teacher_parameters=f"{teacher['num_parameters']:,}" if "num_parameters" in teacher else "no teacher",
        max_abs=f"{student['parity']['max_abs']:.2g}",
        agreement=f"{student['parity']['top1_agreement']:.2%}",
        opset=manifest["opset"],
        steps="\n".join(map(_step_row, calibration["curve"])),
        versions="\n".join(_version_rows(metadata)),
    )


def _version_rows(metadata: dict[str, str]) -> list[str]:
    suffix = "_version"
    return [f"- {key.removesuffix(suffix)} {metadata[key]}" for key in sorted(metadata) if key.endswith(suffix)]


def _step_row(point: Json) -> str:
    steps = "-" if point["num_steps"] is None else point["num_steps"]
    return f"| {steps} | {point['accuracy']:.2%} | {point['nll']:.4f} | {point['ece']:.4f} | {point['macs']:,} |"
