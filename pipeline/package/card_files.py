"""The table of files in a model card."""

from pipeline.core.files import Json
from pipeline.core.text_table import with_error
from pipeline.tasks.base import Task

OF_OUTPUTS = """\
Differences are from the trained network over the {num_images} test images, by ONNX Runtime on a CPU, as a share of the
spread of an image's outputs."""
OF_TENSORS = """\
Differences are from the trained network, by ONNX Runtime on a CPU, as a share of the spread of an image's values: those
of the tensors that the outputs are picked from, over {body_images} test images. The same answer is the share of
{counted} that the trained network gives too, over all {num_images}."""


def what_differs(files: Json, num_images: int) -> str:
    """Return what differences the table of ``files`` shows: of outputs, or of what a tail picks the outputs from."""
    deployed = next(iter(files.values()))["gates"]["deployed"]
    if "body" not in deployed:
        return OF_OUTPUTS.format(num_images=num_images)
    body_images, counted = deployed["body"]["num_images"], deployed["test_split"]["counted"]
    return OF_TENSORS.format(num_images=num_images, body_images=body_images, counted=counted)


def _difference(deployed: Json) -> float:
    tensors = deployed["body"]["tensors"].values() if "body" in deployed else [deployed["test_split"]]
    return max(float(tensor["difference"]) for tensor in tensors)


def file_row(name: str, entry: Json, task: Task) -> str:
    """Return the row of the file ``name``, of which the manifest says ``entry``."""
    found = entry["gates"]["deployed"]["test_split"]
    score = with_error(found[task.primary], found.get(task.primary_error))
    accepted = ", ".join("accepted" if check["accepted"] else "no" for check in entry["tensorrt_static_check"].values())
    return (
        f"| `{name}` | {entry['bytes']:,} | {score} | {_difference(entry['gates']['deployed']):.2g} | "
        f"{found['agreement']:.2%} | {accepted} |"
    )
