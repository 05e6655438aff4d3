"""The few figures by which runs are compared: all that DVC shows as metrics."""

from pipeline.core.files import Json
from pipeline.export.precisions import FP32
from pipeline.report.records import Results, smallest_batch_latency


def headline(results: Results) -> Json:
    """Return scores on the test split with their standard error, size and latency of the fp32 file.

    ``macs_ratio`` is how many times the plain student's multiply-adds it takes; None where it is the plain student.

    ``nll_bits`` bounds the negative log-likelihood of what the teacher says, in bits per dimension (theorem
    3.1); None where no flow that deploys is compared with a teacher.

    Names are short, since DVC makes columns of them.
    """
    primary = results.task.primary
    (name,) = [name for name, entry in results.manifest["files"].items() if entry["precision"] == FP32]
    plain, num_steps = results.calibration.get("plain"), results.calibration["num_steps"]
    chosen = next(point for point in results.calibration["curve"] if point["num_steps"] == num_steps)
    likelihood = results.deployed_likelihood
    _, latency = smallest_batch_latency(results.evaluation)
    return {
        primary: results.deployed,
        f"{primary}_error": results.error,
        **{name: results.evaluation[name] for name in results.task.headline_scores},
        "student": results.trained[primary],
        "teacher": results.teacher_score,
        "K": num_steps,
        "nll_bits": None if likelihood is None else float(likelihood["bound_bits"]),
        "params": results.student["num_parameters"],
        "macs_ratio": None if plain is None else round(chosen["macs"] / plain["macs"], 3),
        "bytes": results.manifest["files"][name]["bytes"],
        "ms": latency,
    }
