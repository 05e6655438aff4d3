"""Check the parameters and the user's files, and record what this host can build: runs on every repro, in a blink."""

from pathlib import Path

import click

from pipeline.core.files import write_json
from pipeline.params.loading import load_params
from pipeline.preflight.checks import (
    check_backbones,
    check_device,
    check_feature_map,
    check_feature_pairs,
    data_fingerprint,
    earlier_inputs,
    weights_fingerprint,
)
from pipeline.preflight.environment import count_gpus, probe_tensorrt
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--out", "JSON file to write.")
@exit_codes
def main(params_path: Path, out: Path) -> None:
    """Write the facts on which stages depend; stops before any stage if a parameter or a path is wrong."""
    params = load_params(params_path)
    data, teacher, student = params.prepare_data, params.train_teacher, params.distill_student
    earlier = earlier_inputs(out)
    check_device(params.base.device, num_gpus=count_gpus())
    backbones = {"distill_student.backbone": student.backbone, "train_teacher.backbone": teacher.backbone}
    check_backbones(backbones, known=earlier.get("backbones", []))
    if student.needs_feature_map:
        check_feature_map(student.backbone, earlier=earlier)
    check_feature_pairs(list(backbones.values()), student.taught_pairs, earlier=earlier)
    facts = {
        "inputs": {
            "backbones": list(backbones.values()),
            "data": data_fingerprint(data.source, Path(data.root) if data.root else None, download=data.download),
            "feature_map": student.backbone if student.needs_feature_map else None,
            "feature_pairs": student.taught_pairs,
            "teacher": "needed" if student.needs_teacher else "not needed",
            "teacher_weights": weights_fingerprint(teacher.weights),
        },
        "tensorrt": probe_tensorrt(),
    }
    write_json(out, facts)


if __name__ == "__main__":
    main()
