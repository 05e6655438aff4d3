"""The flows of a trained student, found by what its networks are, whichever method trained them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from models.classifier import Classifier
from models.flow import FlowTransfer
from models.layers.shape_transform import FeatureTransform
from models.students import FlowStudent, RefinedStudent, SampledStudent

AT_THE_END = "logits"
"""What a flow at the end of a student moves."""


class TracedFlows(NamedTuple):
    """The flows of a trained student, whose trajectories can be followed."""

    student: SampledStudent
    transforms: Sequence[nn.Module | None]
    """T of each flow, into the teacher's space; None: the flow is not compared with the teacher."""
    names: Sequence[str]
    """What each flow moves: the outputs, or the student's stage."""
    flows: Sequence[FlowTransfer]


def traced_flows(student: nn.Module, adapter: nn.Module | None) -> TracedFlows | None:
    """Return the flows of ``student`` and of what was trained beside it; None where there are none.

    They are at the end of the student, at feature maps on the way with the adapter's transforms, or both; of a plain
    student that learned beside a flow it is the adapter on its last feature map.
    """
    if isinstance(student, Classifier) and isinstance(adapter, FlowTransfer):
        student = FlowStudent(student.normalize, student.backbone, adapter)
    if isinstance(student, FlowStudent):
        return TracedFlows(student, [student.flow.transform], [AT_THE_END], [student.flow])
    if isinstance(student, RefinedStudent) and isinstance(adapter, nn.ModuleList):
        transforms: list[nn.Module | None] = [
            transform if isinstance(transform, FeatureTransform) else None for transform in adapter
        ]
        names = [f"{student.map_name} {number}" for number in student.stages]
        flows = [student.flow(str(number)) for number in student.stages]
        if student.end_flow is not None:
            transforms, names = [*transforms, student.end_flow.transform], [*names, AT_THE_END]
            flows.append(student.end_flow)
        return TracedFlows(student, transforms, names, flows)
    return None
