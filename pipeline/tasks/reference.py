"""What the trained network answers: every deployed form is compared with it."""

import numpy as np
import torch

from models.deploy import DeployableNetwork
from pipeline.core.arrays import Outputs
from pipeline.core.signature import Signature
from pipeline.data.dataset import Split
from pipeline.runtimes.base import predict
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.base import Task
from pipeline.tasks.verification import Reference


def trained_outputs(
    task: Task, network: DeployableNetwork, signature: Signature, split: Split, batch_size: int
) -> Outputs:
    """Return the outputs (N, ...) of the trained ``network`` in float32 on the CPU."""
    whole = task.training().export_parts(network.eval()).whole()
    runtime = TorchRuntime(whole, output_names=signature.output_names, device=torch.device("cpu"))
    return predict(runtime, split.pixels, batch_size)


def reference(
    task: Task, network: DeployableNetwork, signature: Signature, split: Split, batch_size: int | None = None
) -> Reference:
    """Return the images of ``split`` with their truth and the answers of the trained ``network``.

    Args:
        batch_size: None: that of the task.
    """
    outputs = trained_outputs(task, network, signature, split, batch_size or task.batch_size)
    return Reference(task, np.ascontiguousarray(split.pixels), split.targets.truth(), outputs)
