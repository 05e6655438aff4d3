"""Checks of the parameters against this host and the user's files, before any stage runs."""

from pathlib import Path

from models.core.table import choose
from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json, read_json
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES
from pipeline.hosts.addresses import own_address
from pipeline.package.signing import check_signing_key
from pipeline.params.schema import Params
from pipeline.preflight.network_checks import check_networks
from pipeline.preflight.package_facts import package_facts, package_name
from pipeline.preflight.weights import check_given_weights
from pipeline.tasks.table import TASKS
from pipeline.training.settings import Hosts


def check_params(params: Params, *, earlier: Json | None = None) -> Json:
    """Check what the schema cannot know, and return the facts about the user's files on which stages depend.

    Args:
        earlier: what an earlier check found right, from ``earlier_inputs``; spares importing PyTorch for it again.

    Raises:
        UserError: a backbone, stage, file, folder, name or key is not there; names the parameter.
    """
    package_name(params.package, params.prepare_data.source)  # before images are looked at, which takes longer
    key = params.package.signing_key
    signing_key = None if key is None else check_signing_key(Path(key))
    found = check_networks(params, earlier=earlier)
    fingerprint = data_fingerprint(params.prepare_data)
    return found | {
        "data": fingerprint,
        "package": package_facts(params, fingerprint=fingerprint, earlier=earlier or {}),
        "signing_key": signing_key,
        "teacher": "needed" if params.distill_student.needs_teacher else "not needed",
        **check_given_weights(params, earlier=earlier or {}),
    }


def data_fingerprint(settings: PrepareData) -> str:
    """Return a text that changes when the user's images change; the source's name where it comes with the pipeline.

    Raises:
        UserError: the source is of a task that there is not; the root is not what the source needs, or cannot be read.
    """
    with user_error("prepare_data.source"):
        choose(TASKS, SOURCES[settings.source].task, kind="task")
    return SOURCES[settings.source].state(settings)


def earlier_inputs(facts: Path) -> Json:
    """Return the inputs that the last probe found right, from its file ``facts``; none where that is no help."""
    try:
        inputs = read_json(facts)["inputs"]
    except (KeyError, UserError):
        return {}
    return inputs if isinstance(inputs, dict) else {}


def check_device(device: str, *, num_gpus: int) -> None:
    """Raise UserError where ``device`` is a CUDA device that a host with ``num_gpus`` does not have."""
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= num_gpus:
        raise UserError(f"base.device: got {device!r}, but this host has {num_gpus} NVIDIA GPU(s); use auto or cpu")


def doubt_endpoint(hosts: Hosts) -> str | None:
    """Return why no training can begin here on several ``hosts``; None where one can.

    It is no error: on the other hosts the same parameters prepare the same data.
    """
    if hosts.num_hosts == 1 or hosts.endpoint is None:
        return None
    try:
        own_address(hosts.endpoint)
    except UserError as error:
        return str(error)
    return None


def check_provider(provider: str) -> None:
    """Raise UserError where what shall compute the ONNX files is not available here.

    ONNX Runtime is imported only for providers that need more than a CPU.
    """
    if provider != "cpu":
        from pipeline.runtimes.onnx import require_provider

        require_provider(provider, "evaluate.provider")
