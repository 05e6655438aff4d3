"""What a batch costs by each method: the losses to put into a training loop, on a student's features.

A logit-based loss holds the flow and its classifier, which are the student's head: train them with the backbone, and
deploy them by ``fold``. None of them holds a teacher: what it answered is an argument.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn

from .core.calling import call
from .core.numbers import amount, positive, share, size_of
from .core.table import unknown_name
from .core.tensors import require_filled, require_like, require_scalar, require_shape, require_tensor
from .flow import FlowTransfer, at_each_step, build_flow, build_logit_flow, require_flow
from .integrate import Trajectory
from .layers.shape_transform import FeatureTransform
from .losses import FEATURE_LOSSES, LOGIT_LOSSES, find_loss, step_cross_entropy
from .meta_encoders import InitialWeights, Predicts
from .step_sampler import StepSampler

LossChoice = str | Callable[..., Tensor]
"""The name of a loss, or a function; see ``find_loss``."""


LabelLoss = Callable[[Tensor, Any], Tensor]
"""From the logits of N steps, (N, B, num_classes), or of a head, (B, num_classes), and the labels to a scalar."""


class FlowOptions(TypedDict, total=False):
    """What the flow that a loss builds may be, beside its channels; see ``build_flow``."""

    schedule: str
    """One of ``SCHEDULES``; rectified."""
    meta_encoder: str
    """One of ``META_ENCODERS``; conv."""
    time_scale: float
    """1."""
    width: int | None
    """None: that of the features."""
    predicts: Predicts
    """velocity."""
    initial_weights: InitialWeights
    """pytorch."""


def require_options(owner: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Raise TypeError where one of ``options``, what ``owner`` was given beside its own arguments, is none of a flow.

    The message has all that ``owner`` takes.
    """
    unknown = [name for name in options if name not in FlowOptions.__annotations__]
    if unknown:
        kinds = [inspect.signature(kind).parameters.values() for kind in owner.__mro__[:-1]]
        own = [one.name for parameters in kinds for one in parameters if one.kind is one.KEYWORD_ONLY]
        known = dict.fromkeys([*own, *FlowOptions.__annotations__])
        raise TypeError(f"{owner.__name__}: {unknown_name('argument', unknown[0], known)}")


class TransferOutput(NamedTuple):
    """What a batch costs, and what it costs it for."""

    total: Tensor
    """What is differentiated, a scalar."""
    parts: dict[str, Tensor]
    """Its terms, unweighted scalars: ``labels`` and ``transfer``; of FM-KT^Theta's flow with ``flow_`` before them."""
    logits: Tensor
    """The answers of what deploys, (B, num_classes)."""
    step_logits: Tensor
    """Those of each of the N steps, (N, B, num_classes); without a flow those of each head."""


class LogitFlowLoss(nn.Module):
    """What the logit-based methods have in common: a flow from features to logits, and how its steps are compared."""

    def __init__(
        self,
        *,
        channels: int | None = None,
        num_classes: int | None = None,
        flow: FlowTransfer | None = None,
        loss: LossChoice = "dist",
        label_loss: LabelLoss = step_cross_entropy,
        weight: float = 1.0,
        num_steps: int | Sequence[int] | StepSampler = 4,
        num_steps_warmup: int = 0,
        pair_ratio: float = 1.0,
        **flow_options: Unpack[FlowOptions],
    ) -> None:
        """Build the loss, and the flow unless one is given.

        Args:
            channels: C of the student's last feature map (B, C, H, W); with ``num_classes`` and ``flow_options`` a flow
                is built. None: it is given.
            num_classes: of teacher and student.
            flow: from features (B, C, H, W) to logits.
            loss: L: kd, dkd, dist, mse, or a function of the student's logits of all N steps, (N, B, num_classes), and
                the teacher's, (B, num_classes), to a scalar: along the classes it computes by dim=-1. One of three
                arguments gets the labels. Settings of a loss: ``functools.partial(fmkt.kd_loss, temperature=2.0)``.
            label_loss: of logits, (N, B, num_classes) or of a plain head (B, num_classes), and the labels, to a scalar.
            weight: w, of the flow's cost.
            num_steps: N in training; of several each batch draws one.
            num_steps_warmup: epochs by which the larger N wait; see ``StepSampler``.
            pair_ratio: the share of a batch that keeps its own teacher's answers, beta_d; see ``paired``.
            flow_options: meta_encoder (conv), schedule (rectified), width, time_scale, predicts, initial_weights; see
                ``build_flow``.

        Raises:
            ValueError: an argument is out of range, or a name unknown.
            TypeError: an argument is unknown; the message has all.
        """
        super().__init__()
        require_options(type(self), flow_options)
        if flow is None:
            sizes = {"channels": positive("channels", channels), "num_classes": positive("num_classes", num_classes)}
            flow = build_logit_flow(**sizes, **flow_options)
        elif channels is not None or num_classes is not None or flow_options:
            raise ValueError("flow: got one, and channels, num_classes or options to build another; give either")
        require_flow(flow)
        self.flow = flow
        self.loss = find_loss(loss, LOGIT_LOSSES)
        self.label_loss = require_function("label_loss", label_loss)
        self.weight = amount("weight", weight)
        self.steps = sampler_of(num_steps, num_steps_warmup)
        self.pair_ratio = share("pair_ratio", pair_ratio)

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, an int counted from 0, begins: what warms up needs to know."""
        self.steps.set_epoch(epoch)

    def step_logits(self, features: Tensor, num_steps: int | None = None) -> Tensor:
        """Return the logits (N, B, num_classes) of each step from ``features`` (B, C, H, W), N as given or as drawn.

        Raises:
            ValueError: the features have another shape, or ``num_steps`` is less than 1.
        """
        require_features(features, self.flow)
        return self.flow.step_outputs(features, self.steps.count(num_steps))

    def flow_parts(self, outputs: Tensor, teacher_logits: Tensor, labels: Any) -> dict[str, Tensor]:
        """Return ``labels`` and ``transfer`` of the ``outputs`` (N, B, num_classes) of the steps: means over them.

        Raises:
            ValueError: the teacher's logits have another shape.
        """
        require_like("teacher_logits", teacher_logits, outputs[0])
        targets = paired([teacher_logits], self.pair_ratio)[0]
        transfer = self.loss(outputs, targets, labels)
        return {"labels": require_scalar("label_loss", self.label_loss(outputs, labels)), "transfer": transfer}


class FlowTransferLoss(LogitFlowLoss):
    """FM-KT on logits: w / N sum_i [L(T(X_T_hat_i), X_T) + CE(T(X_T_hat_i), y)] (arXiv 2402.02012, section 3).

    The arguments are those of ``LogitFlowLoss.__init__``, below. The chain starts at the student's feature and never
    sees the teacher: training takes the same steps as inference.
    """

    def forward(
        self, features: Tensor, teacher_logits: Tensor, labels: Any, *, num_steps: int | None = None
    ) -> TransferOutput:
        """Return the cost of ``features`` (B, C, H, W) against ``teacher_logits`` (B, num_classes) and ``labels`` (B,).

        The logits of the result are the mean over the steps, the implicit ensemble that deploys. Gradients reach what
        the teacher's logits come from: take them under ``torch.no_grad()``.

        Args:
            num_steps: where several losses of a student are to take as many; None: as drawn.

        Raises:
            ValueError: shapes or types do not fit each other, or the flow; a label on the CPU names no class (see
                ``step_cross_entropy``); or ``num_steps`` is less than 1.
        """
        outputs = self.step_logits(features, num_steps)
        parts = self.flow_parts(outputs, teacher_logits, labels)
        total = self.weight * (parts["transfer"] + parts["labels"])
        return TransferOutput(total, parts, outputs.mean(dim=0), outputs)


class OnlineTransferLoss(LogitFlowLoss):
    """OFM-KT, without a teacher: w / N sum_i [CE(o_i, y) + L(o_i, stopgrad(mean_j o_j))], o_i = T(X_T_hat_i).

    The arguments are those of ``LogitFlowLoss.__init__``, below.
    The authors smooth the labels by 0.1: ``label_loss=functools.partial(step_cross_entropy, label_smoothing=0.1)``.
    """

    def forward(self, features: Tensor, labels: Any, *, num_steps: int | None = None) -> TransferOutput:
        """Return the cost of ``features`` (B, C, H, W) with ``labels`` (B,); the rest as of ``FlowTransferLoss``."""
        outputs = self.step_logits(features, num_steps)
        averaged = outputs.mean(dim=0)
        parts = self.flow_parts(outputs, averaged.detach(), labels)
        return TransferOutput(self.weight * (parts["transfer"] + parts["labels"]), parts, averaged, outputs)


ThetaTarget = Literal["flow", "teacher", "both"]


class ThetaTransferLoss(LogitFlowLoss):
    """FM-KT^Theta: FM-KT's loss, plus that of a plain head on the same features, which deploys without the flow.

    w_theta [L(Theta(X_S), target) + CE(Theta(X_S), y)], where the target is the flow's mean output, which this does not
    move (the published form), the teacher, or both, of which the mean of the losses counts.

    Args:
        head: Theta, from features (B, C, H, W) to logits (B, num_classes); None: tied, the flow's own classifier, of
            which this is the loss at no step: the same weights then answer with any number of steps, 0 included. A
            tied flow starts as one that does not move, by ``start_at_rest``.
        target: what the head learns from.
        theta_weight: w_theta.
        reaches_backbone: whether the head's gradient goes on into the features.
        weight_end: what the flow's weight goes to, linearly over the last third of the epochs; None: it stays.
        epochs: of the training; needed with ``weight_end``.
        options: the arguments of ``FlowTransferLoss``.

    Raises:
        ValueError: as of ``FlowTransferLoss``; the head is no module; the target is unknown; or a weight is to end
            elsewhere, and ``epochs`` is not given.
    """

    def __init__(
        self,
        head: nn.Module | None,
        *,
        target: ThetaTarget = "flow",
        theta_weight: float = 1.0,
        reaches_backbone: bool = True,
        weight_end: float | None = None,
        epochs: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if target not in get_args(ThetaTarget):
            raise ValueError(f"target: got {target!r}; give {', '.join(get_args(ThetaTarget))}")
        if weight_end is not None:
            epochs, weight_end = positive("epochs", epochs), amount("weight_end", weight_end)
        if head is not None and not isinstance(head, nn.Module):
            raise ValueError(f"head: got a {type(head).__name__}; give a module, or None for the flow's own classifier")
        self.head = self.flow.transform if head is None else head
        self.target = target
        self.theta_weight = amount("theta_weight", theta_weight)
        self.reaches_backbone = reaches_backbone
        self.weight_start, self.weight_end, self.epochs = self.weight, weight_end, epochs

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins: what warms up or fades out needs to know."""
        super().set_epoch(epoch)
        if self.weight_end is not None and self.epochs is not None:
            past = min(max(3 * (epoch + 1) / self.epochs - 2, 0.0), 1.0)  # 0 until two thirds, 1 in the last epoch
            self.weight = self.weight_start + past * (self.weight_end - self.weight_start)

    def forward(
        self, features: Tensor, teacher_logits: Tensor, labels: Any, *, num_steps: int | None = None
    ) -> TransferOutput:
        """Return the cost of flow and head; the logits of the result are the head's, the rest as of FM-KT."""
        outputs = self.step_logits(features, num_steps)
        logits = call(self.head, features if self.reaches_backbone else features.detach())
        require_like("head", logits, outputs[0], came="returned")
        require_like("teacher_logits", teacher_logits, outputs[0])
        averaged = outputs.mean(dim=0).detach()
        targets = {"flow": [averaged], "teacher": [teacher_logits], "both": [averaged, teacher_logits]}[self.target]
        transfer = torch.stack([self.loss(logits, target, labels) for target in targets]).mean()
        head = {"labels": require_scalar("label_loss", self.label_loss(logits, labels)), "transfer": transfer}
        flow = self.flow_parts(outputs, teacher_logits, labels)
        total = self.weight * (flow["transfer"] + flow["labels"]) + self.theta_weight * (transfer + head["labels"])
        return TransferOutput(total, head | {f"flow_{name}": cost for name, cost in flow.items()}, logits, outputs)


class HeadTransferLoss(nn.Module):
    """Classical distillation of a plain head: CE(logits, y) + w L(logits, teacher's); it has no weights of its own.

    It is the control without a flow, and what stands beside feature maps that are transferred: add its total to those
    of ``FeatureTransferLoss``. Where a flow leads to the logits of such a student, take ``FlowTransferLoss`` for it.

    Args:
        loss: L: kd, dkd, dist, mse, or a function of the student's logits, as they come, and the teacher's,
            (B, num_classes), to a scalar.
        label_loss: of logits (B, num_classes), or (H, B, num_classes), and the labels, to a scalar.
        weight: w.

    Raises:
        ValueError: the name of the loss is unknown, or the weight less than 0.
    """

    def __init__(
        self,
        *,
        loss: LossChoice = "kd",
        label_loss: LabelLoss = step_cross_entropy,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.loss = find_loss(loss, LOGIT_LOSSES)
        self.label_loss = require_function("label_loss", label_loss)
        self.weight = amount("weight", weight)

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins: nothing here follows it."""

    def forward(self, logits: Tensor, teacher_logits: Tensor, labels: Any) -> TransferOutput:
        """Return the cost of ``logits`` (B, num_classes) against ``teacher_logits``, shaped alike, and ``labels`` (B,).

        Those of several heads, (H, B, num_classes), each learn by themselves: the costs are means over the heads, and
        so are the logits of the result. Its ``step_logits`` are those of each head.

        Raises:
            ValueError: shapes or types do not fit each other, or a label on the CPU names no class.
        """
        require_filled("logits", logits)
        require_shape("logits", logits, *(["H"] if logits.dim() == 3 else []), "B", "num_classes")
        each = logits if logits.dim() == 3 else logits[None]
        require_like("teacher_logits", teacher_logits, each[0])
        parts = {
            "labels": require_scalar("label_loss", self.label_loss(logits, labels)),
            "transfer": self.loss(logits, teacher_logits, labels),
        }
        return TransferOutput(parts["labels"] + self.weight * parts["transfer"], parts, each.mean(dim=0), each)


class FeatureTransferOutput(NamedTuple):
    """What the transfer of one feature map costs, and what flows on."""

    total: Tensor
    """w / N sum_i L(T(X_T_hat_i), X_T), a scalar."""
    features: Tensor
    """Z_N, shaped like the student's feature map: what the student's next stage takes, also when deployed."""
    trajectory: Trajectory


class FeatureTransferLoss(nn.Module):
    """FM-KT on one feature map: the flow's last state takes its place in the student (arXiv 2402.02012, section 3).

    ``transform``, to the teacher's shape, is needed in training alone; ``flow`` is part of what deploys.

    Args:
        channels: of the student's feature map.
        teacher_channels: of the teacher's.
        teacher_size: height and width of the teacher's.
        loss: L: pkd, mse, or a function of the student's maps of all N steps, (N, B, C', H', W'), and the teacher's,
            (B, C', H', W'), to a scalar.
        weight: w.
        num_steps: N in training; of several each call draws one.
        num_steps_warmup: epochs by which the larger N wait; see ``StepSampler``.
        pair_ratio: see ``paired``.
        flow_options: meta_encoder (conv), schedule (rectified), width, time_scale, predicts, initial_weights; see
            ``build_flow``.

    Raises:
        ValueError: an argument is out of range, or a name unknown.
        TypeError: an argument is unknown; the message has all.
    """

    def __init__(
        self,
        *,
        channels: int,
        teacher_channels: int,
        teacher_size: tuple[int, int],
        loss: LossChoice = "pkd",
        weight: float = 1.0,
        num_steps: int | Sequence[int] | StepSampler = (1, 2, 4, 8, 16),
        num_steps_warmup: int = 10,
        pair_ratio: float = 1.0,
        **flow_options: Unpack[FlowOptions],
    ) -> None:
        super().__init__()
        own, theirs = positive("channels", channels), positive("teacher_channels", teacher_channels)
        require_options(type(self), flow_options)
        self.flow = build_flow(channels=own, transform=nn.Identity(), **flow_options)
        self.transform = FeatureTransform(own, theirs, size_of("teacher_size", teacher_size))
        self.loss = find_loss(loss, FEATURE_LOSSES)
        self.weight = amount("weight", weight)
        self.steps = sampler_of(num_steps, num_steps_warmup)
        self.pair_ratio = share("pair_ratio", pair_ratio)

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, an int counted from 0, begins: what warms up needs to know."""
        self.steps.set_epoch(epoch)

    def forward(
        self, features: Tensor, teacher_features: Tensor, *, num_steps: int | None = None
    ) -> FeatureTransferOutput:
        """Return the cost of ``features`` (B, C, H, W) against ``teacher_features`` (B, C', H', W'), and what flows on.

        Args:
            num_steps: where several losses of a student are to take as many; None: as drawn.

        Raises:
            ValueError: the features, or the teacher's, have another shape than was said; or ``num_steps`` is less than
                1.
        """
        require_features(features, self.flow)
        trajectory = self.flow.trajectory(features, self.steps.count(num_steps))
        outputs = at_each_step(self.transform, trajectory.estimates)
        require_like("teacher_features", teacher_features, outputs[0])
        total = self.weight * self.loss(outputs, paired([teacher_features], self.pair_ratio)[0], None)
        return FeatureTransferOutput(total, trajectory.states[-1], trajectory)


def paired(targets: Sequence[Tensor], ratio: float) -> Sequence[Tensor]:
    """Return the teacher's ``targets`` (B, ...) in the order in which the student's rows see them: pair decoupling.

    Rows below int(ratio * B) keep their own; the others are permuted among themselves, all targets alike. Ratio 1
    decouples none.

    Raises:
        ValueError: the ratio is no share, or the targets are not of one batch.
    """
    if share("ratio", ratio) == 1 or not targets:
        return targets
    for target in targets:
        require_tensor("targets", target)
        require_shape("targets", target, "B", ...)
    batch_size, device = len(targets[0]), targets[0].device
    if any(len(target) != batch_size for target in targets):
        raise ValueError(f"targets: got batches of {[len(target) for target in targets]}; give those of one batch")
    if any(target.device != device for target in targets):
        raise ValueError(f"targets: got tensors on {[str(target.device) for target in targets]}; give them on one")
    kept = int(ratio * batch_size)
    rows = torch.cat([torch.arange(kept, device=device), kept + torch.randperm(batch_size - kept, device=device)])
    return [target[rows] for target in targets]


def require_function(name: str, function: LabelLoss) -> LabelLoss:
    """Return ``function``, the argument called ``name``; raises ValueError where it cannot be called."""
    if not callable(function) or isinstance(function, type):
        raise ValueError(f"{name}: got {function!r}; give a function of logits (N, B, num_classes) and labels")  # noqa: TRY004
    return function


def require_features(features: Any, flow: FlowTransfer) -> None:
    """Raise ValueError where ``features`` are no feature maps (B, C, H, W) from which the ``flow`` can start."""
    require_filled("features", features)
    flow.require_source("features", features)
    require_shape("features", features, "B", "C", "H", "W")


def sampler_of(num_steps: int | Sequence[int] | StepSampler, warmup_epochs: int) -> StepSampler:
    """Return what draws from ``num_steps``.

    Raises:
        ValueError: one of them is less than 1, or ``warmup_epochs`` less than 0.
    """
    if isinstance(num_steps, StepSampler):
        return num_steps
    return StepSampler([num_steps] if isinstance(num_steps, int) else num_steps, warmup_epochs)
