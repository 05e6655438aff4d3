"""Check the parameters and the user's files, and record what this host can build: runs on every repro, in a blink."""

import logging
from pathlib import Path

import click

from pipeline.core.durable import project_root
from pipeline.core.files import write_json
from pipeline.core.host import count_gpus, probe_tensorrt
from pipeline.params.schema import load_params
from pipeline.preflight.checks import check_device, check_params, check_provider, doubt_endpoint, earlier_inputs
from pipeline.preflight.code import write_code_digests
from pipeline.preflight.repair import repair_cache, tidy
from stages.common import stage_options
from stages.exit_codes import exit_codes

logger = logging.getLogger(__name__)


@click.command()
@stage_options("probe_environment")
@exit_codes
def main(params_path: Path, out: Path, code: Path) -> None:
    """Write the facts on which stages depend; stops before any stage if a parameter or a path is wrong."""
    tidy(project_root())
    for line in repair_cache(project_root()):
        logger.warning("%s", line)
    params = load_params(params_path)
    check_device(params.base.device, num_gpus=count_gpus())
    check_provider(params.evaluate.provider)
    doubt = doubt_endpoint(params.execution.hosts)
    if doubt is not None:
        logger.warning("no training can begin on this host: %s", doubt)
    inputs = check_params(params, earlier=earlier_inputs(out))
    write_code_digests(code)
    write_json(out, {"inputs": inputs, "tensorrt": probe_tensorrt()})


if __name__ == "__main__":
    main()
