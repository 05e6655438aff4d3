"""How the state moves along the flow: its distance to the teacher, how straight it goes, what each step knows."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.integrate import Trajectory, step_times
from pipeline.core.arrays import Outputs, Truth, concatenate
from pipeline.data.batch import Batch
from pipeline.data.dataset import Split
from pipeline.data.packed_batches import ordered_batches
from pipeline.distillation.frozen_teacher import FrozenTeacher
from pipeline.distillation.traced_flows import TracedFlows
from pipeline.tasks.base import Task
from pipeline.tasks.verification import scores_with_error

Row = dict[str, Any]
Figures = dict[tuple[str, int], dict[str, float]]
"""From (flow, step) to the mean of each figure."""


class _Found(NamedTuple):
    """What is found on a batch at a step."""

    alone: Outputs
    """By the step itself."""
    stopped: Outputs
    """By a student that stops after it."""


def columns(task: Task) -> list[str]:
    """Return the columns of a row of ``trace``; scores are the primary one of ``task``."""
    distances, primary = ["state_distance", "estimate_distance"], task.primary
    ensemble = f"ensemble_{primary}", f"ensemble_{task.primary_error}"
    return ["flow", "step", "time", *distances, "speed", "curvature", f"step_{primary}", *ensemble]


def summary_columns(task: Task) -> list[str]:
    """Return the columns of a row of ``FlowDiagnostics.summarize``."""
    return ["flow", "num_steps", task.primary, task.primary_error, "distance", "curvature"]


class FlowDiagnostics:
    """The trajectories of a trained student's flows on a split.

    Args:
        flows: what is traced.
        teacher: returns the target of each flow; None where the method has no teacher.
    """

    def __init__(self, flows: TracedFlows, teacher: FrozenTeacher | None, task: Task) -> None:
        self.flows = flows
        self.teacher = teacher
        self.task = task
        self.outputs = task.training().outputs

    @torch.no_grad()
    def trace(self, split: Split, num_steps: int, device: torch.device) -> list[Row]:
        """Return a row (see ``columns``) for each step of each flow, averaged over ``split``.

        Distances are ||T(z) - X_T|| / ||X_T|| of each image, logits less their mean; ``state_distance`` is that of the
        state after the step. ``speed`` is ||v_i|| / ||Z_0||. ``curvature`` is ||v_i - u|| / ||u||, where u = Z_0 - Z_N
        is the straight line: 0 everywhere is a straight path. The score of a step is that of its own outputs, that of
        the ensemble that of a student that stops after this step.
        """
        figures: Figures = {}
        found: list[list[_Found]] = []
        for module in (self.flows.student, *filter(None, self.flows.transforms)):
            module.eval().to(device)
        for batch in ordered_batches(split, self.task.batch_size, device):
            found.append(self._found(batch, num_steps))
            for key, values in self._batch_figures(batch, num_steps):
                total = figures.setdefault(key, dict.fromkeys(values, 0.0))
                for name, value in values.items():
                    total[name] += float(value.sum()) / len(split)
        scores = [self._scores(batches, split.targets.truth()) for batches in zip(*found, strict=True)]
        times = step_times(num_steps)
        return [
            {"flow": flow, "step": i + 1, "time": times[i], **values, **scores[i]}
            for (flow, i), values in figures.items()
        ]

    @torch.no_grad()
    def without_a_step(self, split: Split, device: torch.device) -> list[Row]:
        """Return the row (see ``summary_columns``) of K = 0, of a student that was trained to answer so; else none.

        ``distance`` is that of its answers, and there is no ``curvature``.
        """
        student = self.flows.student
        if student.fewest_steps > 0:
            return []
        student.eval().to(device)
        outputs: list[Outputs] = []
        distances: list[Tensor] = []
        for batch in ordered_batches(split, self.task.batch_size, device):
            answers = student(batch.images, 0)
            outputs.append(self.outputs(answers))
            if self.teacher is not None:
                [target] = self.teacher(batch.images)
                distances.append(_distance(answers, target))
        scores = scores_with_error(self.task, concatenate(outputs), split.targets.truth())
        [flow] = self.flows.names
        return [
            {
                "flow": flow,
                "num_steps": 0,
                **{name: scores[name] for name in (self.task.primary, self.task.primary_error)},
                "distance": float(torch.cat(distances).mean()) if distances else None,
                "curvature": None,
            }
        ]

    def summarize(self, rows: Sequence[Row], num_steps: int) -> list[Row]:
        """Return a row (see ``summary_columns``) for each flow of a trace of ``num_steps`` steps.

        The score is that of the student with so many steps, ``distance`` that of the last estimate, ``curvature`` the
        mean.
        """
        by_flow: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_flow[row["flow"]].append(row)
        scores = self.task.primary, self.task.primary_error
        return [
            {
                "flow": flow,
                "num_steps": num_steps,
                **{name: trajectory[-1][f"ensemble_{name}"] for name in scores},
                "distance": trajectory[-1].get("estimate_distance"),
                "curvature": sum(row["curvature"] for row in trajectory) / num_steps,
            }
            for flow, trajectory in by_flow.items()
        ]

    def _batch_figures(self, batch: Batch, num_steps: int) -> Iterator[tuple[tuple[str, int], Mapping[str, Tensor]]]:
        """Yield ((flow, step), figure to its value (B,) for each image)."""
        names, transforms = self.flows.names, self.flows.transforms
        targets = iter(self.teacher(batch.images) if self.teacher else ())
        trajectories = self.flows.student.trajectories(batch.images, num_steps)
        for name, trajectory, transform in zip(names, trajectories, transforms, strict=True):
            target = next(targets) if self.teacher and transform is not None else None
            for i in range(num_steps):
                figures = {
                    "speed": _ratio(trajectory.velocities[i], of=trajectory.states[0]),
                    "curvature": _curvature(trajectory, i),
                }
                if transform is not None and target is not None:
                    figures["state_distance"] = _distance(transform(trajectory.states[i + 1]), target)
                    figures["estimate_distance"] = _distance(transform(trajectory.estimates[i]), target)
                yield (name, i), figures

    def _found(self, batch: Batch, num_steps: int) -> list[_Found]:
        """Return the outputs on a batch of each step, and of a student that stops after it."""
        student = self.flows.student
        steps = student.step_predictions(batch.images, num_steps)
        found = []
        for i, step in enumerate(steps):
            stopped, alone = student.combine(steps[: i + 1]), self.outputs(step)
            found.append(_Found(alone, alone if stopped is step else self.outputs(stopped)))
        return found

    def _scores(self, found: Sequence[_Found], truth: Truth) -> dict[str, float]:
        """Return the primary score of a step, ``found`` of each batch, and that of a student that stops after it."""
        task, primary = self.task, self.task.primary
        alone, stopped = (concatenate(batches) for batches in zip(*found, strict=True))
        scores = scores_with_error(task, stopped, truth)
        row = {f"step_{primary}": task.score(alone, truth)[primary]}
        return row | {f"ensemble_{name}": scores[name] for name in (primary, task.primary_error)}


def _ratio(x: Tensor, of: Tensor) -> Tensor:
    """Return ||x|| / ||of|| of each image, (B,); 0 where ``x`` is."""
    numerator, denominator = (one.flatten(1).square().sum(dim=1).sqrt() for one in (x, of))
    return numerator / denominator.clamp(min=1e-12)


def _curvature(trajectory: Trajectory, step: int) -> Tensor:
    line = trajectory.states[0] - trajectory.states[-1]
    return _ratio(trajectory.velocities[step] - line, of=line)


def _distance(output: Tensor, target: Tensor) -> Tensor:
    if output.dim() == 2:  # a constant added to all logits of an image means nothing
        output, target = (x - x.mean(dim=1, keepdim=True) for x in (output, target))
    return _ratio(output - target, of=target)
