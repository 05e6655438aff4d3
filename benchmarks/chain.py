r"""What the chain takes, by wall clock and by CPU: to install it, from a fresh clone to a package, and once more.

    python -m benchmarks.chain detection-digits --runs 3                # in this environment
    python -m benchmarks.chain photos-scratch --images data/photos
    python -m benchmarks.chain digits detection-digits photos-scratch --images data/photos --install \
      --first-run benchmarks/results/first-run --output benchmarks/results/chain.json

Each run is ``make repro`` of a preset in a clone of its own of what is committed here, without data, cache or results,
and then again, with nothing to do. Seconds of a stage are those of its process, started by DVC; CPU seconds count all
of its children's. With ``--install`` the environment is made anew with an empty cache of pip, whose size is then what
was downloaded; null where pip took all files from this host and kept none. Python keeps bytecode, as by
default, whatever this shell says: without it each stage would compile the project anew.
"""

import json
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from ruamel.yaml import YAML

from benchmarks.measuring import output_option, spread, write_result

ROOT = Path(__file__).parent.parent
INSTALLED = ".venv/.installed"
AGAIN = 3
"""Runs with nothing to do, after each first one."""
SHIM = """\
#!{python}
import json, resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.call([{python!r}, *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
spent = [time.perf_counter() - began, used.ru_utime + used.ru_stime]
with open({log!r}, "a") as file:
    file.write(json.dumps([sys.argv[1:], *spent]) + "\\n")
sys.exit(code if code >= 0 else 128 - code)
"""
"""Stands before Python in the path of what is run, and notes what each call of it took."""


class Spent(NamedTuple):
    """What something took."""

    seconds: float
    cpu_seconds: float


def timed(command: Sequence[str], folder: Path, **environment: str) -> Spent:
    """Run ``command`` in ``folder`` and return what it and all of its children took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=folder, env={**usual, **environment}, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} in {folder} ended with {done.returncode}; its output is above")
    return Spent(seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def summarised(found: Sequence[Spent]) -> dict[str, Any]:
    """Return the medians of ``found`` with their spread."""
    columns = {name: np.array([getattr(spent, name) for spent in found]) for name in Spent._fields}
    return {"n": len(found)} | {key: value for name in columns for key, value in spread(name, columns[name]).items()}


def install(clone: Path) -> dict[str, Any]:
    """Make the environment of ``clone`` with an empty cache of pip; return what that took, and how large it is."""
    with tempfile.TemporaryDirectory() as cache:
        spent = timed(["make", "install"], clone, PIP_CACHE_DIR=cache, PIP_NO_CACHE_DIR="0")
        downloaded = num_bytes(Path(cache)) or None
    took = {key: round(value, 3) for key, value in spent._asdict().items()}
    return {**took, "download_bytes": downloaded, "disk_bytes": num_bytes(clone / ".venv")}


def num_bytes(folder: Path) -> int:
    """Return the size of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


class Clone:
    """A clone of the repository in ``folder``, with ``environment``, the folder of an installed one, as its own."""

    def __init__(self, repository: Path, folder: Path) -> None:
        subprocess.run(["git", "clone", "--quiet", str(repository), str(folder)], check=True)
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.jsonl")

    def repro(self, environment: Path) -> Spent:
        """Return what ``make repro`` takes in ``environment``, an installed one; stages are noted in ``log``."""
        own = self.folder / ".venv"
        if not own.exists():
            own.symlink_to(environment)
        shims = self.folder.with_name(f"{self.folder.name}-python")
        shims.mkdir(exist_ok=True)
        shim = shims / "python"
        shim.write_text(SHIM.format(python=str(environment / "bin/python"), log=str(self.log)))
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
        path = os.pathsep.join([str(shims), str(environment / "bin"), os.environ["PATH"]])
        # the environment is as old as it is: a file of a fresh clone is newer, and is no reason to install again
        command = ["make", "--no-print-directory", f"--assume-old={INSTALLED}", f"PATH={path}", "repro"]
        return timed(command, self.folder, PYTHONPATH=str(self.folder))

    def stages(self) -> dict[str, Spent]:
        """Return what each stage took that has run; one that runs for several files or runtimes, all of its runs."""
        found: dict[str, Spent] = {}
        for words, seconds, cpu_seconds in map(json.loads, self.log.read_text().splitlines()):
            if words[:1] == ["-m"] and words[1].startswith("stages."):
                name = words[1].removeprefix("stages.")
                before = found.get(name, Spent(0.0, 0.0))
                found[name] = Spent(before.seconds + seconds, before.cpu_seconds + cpu_seconds)
        return found


def set_images(params: Path, images: Path) -> None:
    """Let the parameters file ``params`` take ``images``, and name its package, unless its data set brings its own."""
    content = YAML().load(params)
    if content["prepare_data"]["source"] == "imagefolder":
        content["prepare_data"]["root"] = str(images.resolve())
        content["package"]["name"] = "photos"
        YAML().dump(content, params)


def measure(repository: Path, work: Path, preset: str, environment: Path, *, images: Path | None) -> dict[str, Any]:
    """Return what a first run of ``preset`` takes, each of its stages, and runs with nothing to do; what came of it."""
    clone = Clone(repository, work / preset)
    python = str(environment / "bin/python")
    subprocess.run([python, "-m", "stages", "preset", preset], cwd=clone.folder, check=True)
    if images is not None:
        set_images(clone.folder / "params.yaml", images)
    first = clone.repro(environment)
    stages = clone.stages()
    again = [clone.repro(environment) for _ in range(AGAIN)]
    metrics = json.loads((clone.folder / "reports/metrics.json").read_text())
    return {"first": first, "stages": stages, "again": again, "metrics": metrics, "folder": clone.folder}


def keep_run(clone: Path, environment: Path, folder: Path) -> None:
    """Write what ``fmkt summary`` prints of the run in ``clone``, and its trade-off, to ``folder``."""
    command = [str(environment / "bin/python"), "-m", "stages", "summary"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.txt").write_text(done.stdout, encoding="utf-8")
    shutil.copyfile(clone / "artifacts/tradeoff/tradeoff.json", folder / "tradeoff.json")


@click.command()
@click.argument("presets", nargs=-1)
@click.option("--install/--no-install", "installs", default=False, show_default=True, help="Into the first clone.")
@click.option("--runs", default=1, show_default=True, help="Clones of each preset.")
@click.option(
    "--images", type=click.Path(exists=True, path_type=Path), help="Folder of images, for presets that need some."
)
@click.option("--repository", default=ROOT, type=click.Path(exists=True, path_type=Path), help="[default: this one]")
@click.option("--first-run", type=click.Path(path_type=Path), help="Folder for the summary of the first preset's run.")
@output_option
def main(
    *,
    presets: tuple[str, ...],
    installs: bool,
    runs: int,
    images: Path | None,
    repository: Path,
    first_run: Path | None,
    output: Path | None,
) -> None:
    """Measure the PRESETS, or digits and detection-digits."""
    found: dict[str, Any] = {}
    environment = Path(sys.prefix)
    with tempfile.TemporaryDirectory() as folder:
        if installs:
            clone = Clone(repository, Path(folder, "installed"))
            found["install"] = install(clone.folder)
            environment = clone.folder / ".venv"
        for preset in presets or ("digits", "detection-digits"):
            measured = [
                measure(repository, Path(folder, str(number)), preset, environment, images=images)
                for number in range(runs)
            ]
            stages = {stage: [run["stages"][stage] for run in measured] for stage in measured[0]["stages"]}
            found.setdefault("presets", {})[preset] = {
                "first": summarised([run["first"] for run in measured]),
                "again": summarised([spent for run in measured for spent in run["again"]]),
                "stages": {stage: summarised(spent) for stage, spent in stages.items()},
                "metrics": measured[0]["metrics"],
            }
            if first_run is not None:
                keep_run(measured[0]["folder"], environment, first_run)
                first_run = None
            if installs:
                first = next(iter(found["presets"].values()))["first"]["seconds"]
                found["from_nothing"] = {"seconds": round(found["install"]["seconds"] + first, 3)}
            write_result(output, **found)  # what has been measured stays where the next preset fails
    for preset, row in found["presets"].items():
        click.echo(f"{preset}: first {row['first']['seconds']:.1f} s, again {row['again']['seconds']:.1f} s")
        for stage, spent in row["stages"].items():
            click.echo(f"  {stage:20} {spent['seconds']:7.1f} s {spent['cpu_seconds']:7.1f} s of CPU")


if __name__ == "__main__":
    main()
