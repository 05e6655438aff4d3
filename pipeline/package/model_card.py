"""The model card: Markdown made of recorded facts alone."""

import json
from string import Template

from pipeline.core.files import Json

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

| file (opset $opset) | bytes | top-1 | largest difference of a logit | same label as trained | TensorRT 10, 11 |
|---|---:|---:|---:|---:|---|
$files

Differences are from the trained network over the $num_images test images, by ONNX Runtime on a CPU. `int8-cpu` is for
ONNX Runtime, `int8-trt` for TensorRT. The last column is a static check against the published operator tables; the
builder on the target decides.

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
$pixels
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {"image": pixels})[0]
print(labels[int(logits.argmax())])
```

Normalisation is inside the graph.
`sha256sum -c SHA256SUMS` tells whether the package is whole. `samples.safetensors` holds test images with the logits
that the trained network gives them. `triton` is a model repository for NVIDIA Triton.

## Accuracy and latency

Each number of steps in each precision: accuracy on the test images, and the median latency of a call. Points marked are
those that no other beats in both.

![accuracy against latency](tradeoff.svg)

| steps | precision | top-1 | bytes | latency, ms | |
|---|---|---:|---:|---:|---|
$points

Protocol: $protocol. Latency differs from host to host.

## Calibration of the sampling steps

On images held out from training, not on the test images above.

| steps | accuracy | negative log-likelihood | calibration error | multiply-adds |
|---|---|---|---|---|
$steps

## Written with

$versions

Method: Shao, Shen, Gong, Chen, Dai, "Precise Knowledge Transfer via Flow Matching", arXiv 2402.02012.
"""


PIXELS = {
    "float32": "pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, H, W), RGB",
    "uint8": "pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])  # (1, 3, H, W), RGB, uint8",
}


def model_card(facts: Json) -> str:
    """Return the card for ``facts``: name, description and ONNX metadata, and the package's records by their names."""
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
        opset=manifest["opset"],
        files="\n".join(_file_row(name, manifest["files"][name]) for name in sorted(manifest["files"])),
        pixels=PIXELS[manifest["input"]],
        points="\n".join(map(_point_row, facts["tradeoff"]["points"])),
        protocol=facts["tradeoff"]["protocol"],
        steps="\n".join(map(_step_row, calibration["curve"])),
        versions="\n".join(_version_rows(metadata)),
    )


def _file_row(name: str, entry: Json) -> str:
    found = entry["gates"]["deployed"]["test_split"]
    accepted = ", ".join("accepted" if check["accepted"] else "no" for check in entry["tensorrt_static_check"].values())
    return (
        f"| `{name}` | {entry['bytes']:,} | {found['accuracy']:.2%} | {found['max_abs']:.2g} | "
        f"{found['top1_agreement']:.2%} | {accepted} |"
    )


def _point_row(point: Json) -> str:
    steps = "-" if point["num_steps"] is None else point["num_steps"]
    mark = "marked" if point["on_the_front"] else ""
    return (
        f"| {steps} | {point['precision']} | {point['accuracy']:.2%} | {point['bytes']:,} | "
        f"{point['latency_ms']:.3f} | {mark} |"
    )


def _version_rows(metadata: dict[str, str]) -> list[str]:
    suffix = "_version"
    return [f"- {key.removesuffix(suffix)} {metadata[key]}" for key in sorted(metadata) if key.endswith(suffix)]


def _step_row(point: Json) -> str:
    steps = "-" if point["num_steps"] is None else point["num_steps"]
    return f"| {steps} | {point['accuracy']:.2%} | {point['nll']:.4f} | {point['ece']:.4f} | {point['macs']:,} |"
