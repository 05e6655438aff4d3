"""What the environment of requirements.lock consists of: ``make sbom`` writes it in the CycloneDX format.

The standard tool (cyclonedx-bom) describes what is installed; it knows neither the sums of the lock nor the licence of
each package. Both are added here. docs/licences.md lists the licences of all that is locked, for any system.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
SPECIFICATION = "1.6"
"""Of CycloneDX."""
OWN_NAMES = ("fmkt-pipeline", "fmkt")
"""Of the clone's two distributions, which are no components: they are what is described."""
LONGEST_LICENCE = 100
"""Characters; some packages have the whole text where its name should be."""
NOT_STATED: Mapping[str, str] = {
    "cuda-toolkit": "NVIDIA Proprietary Software",
    "faster-coco-eval": "Apache-2.0",
    "httpx2-jsfetch": "BSD-3-Clause",
    "pywin32": "PSF-2.0",
    "tzdata": "Apache-2.0",
}
"""Of packages that state none, or are for other systems alone: what their licence files say."""
ADVICE = "read its licence file, and add it to NOT_STATED of deploy/sbom.py"
WORDS: Mapping[str, str] = {
    "asyncssh": "Take EPL-2.0. DVC reaches git repositories over SSH by it.",
    "certifi": "Copyleft for its own files, which are the certificates of authorities, and are not changed here.",
    "dulwich": "Take Apache-2.0. DVC reads git repositories by it.",
    "grandalf": "Take EPL-1.0. DVC draws its graph of stages by it (`dvc dag`).",
    "pygit2": "The exception lets programs of any licence use it, unchanged. DVC reads git repositories by it.",
}
"""What follows from licences under which a changed copy must be given away in source."""
NVIDIA = (
    "NVIDIA's own terms (the EULA of CUDA, or of the library): to use it is free, to hand it on is limited by them."
)
OF_FILES = "Copyleft for its own files, which are not changed here."
"""What follows from the Mozilla Public License."""
REMARKABLE = re.compile(r"GPL|MPL|EPL|Mozilla|NVIDIA|Proprietary")
"""In licences that need a word."""


class Pin(NamedTuple):
    """One entry of the lock; a package may have several, for different versions of Python."""

    name: NormalizedName
    version: str
    hashes: tuple[str, ...]
    """SHA-256 of the files that may be installed."""


def read_lock(path: Path = LOCK) -> list[Pin]:
    """Return the entries of the lock ``path``, in its order."""
    joined = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [_pin(line) for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def _pin(line: str) -> Pin:
    asked, *hashes = re.split(r"\s+--hash=sha256:", line.strip())
    requirement = Requirement(asked)
    (version,) = (one.version for one in requirement.specifier)
    return Pin(canonicalize_name(requirement.name), version, tuple(hashes))


def licence(name: str) -> str:
    """Return the licence of the locked package ``name``, in its own words.

    Raises:
        LookupError: it is not installed here, or states none, and none is known otherwise.
    """
    if name in NOT_STATED:
        return NOT_STATED[name]
    try:
        facts: Any = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise LookupError(f"{name} is not installed here: {ADVICE}") from error
    stated: list[str | None] = [facts.get("License-Expression"), facts.get("License")]
    stated += [" or ".join(text.rpartition(" :: ")[2] for text in facts.get_all("Classifier", []) if _names_one(text))]
    for text in stated:
        if text and len(text) < LONGEST_LICENCE and "\n" not in text and not text.startswith(("UNKNOWN", "Copyright")):
            return text
    raise LookupError(f"{name} states no licence: {ADVICE}")


def _names_one(classifier: str) -> bool:
    return classifier.startswith("License :: ") and classifier != "License :: OSI Approved"


def licences_table() -> str:
    """Return the table in docs/licences.md."""
    versions: dict[str, list[str]] = {}
    for pin in read_lock():
        versions.setdefault(pin.name, []).append(pin.version)
    rows = []
    for name, known in versions.items():
        stated = licence(name)
        word = WORDS.get(name, "")
        if not word and re.search("MPL|Mozilla", stated):
            word = OF_FILES
        elif re.search("NVIDIA|Proprietary", stated):
            word = NVIDIA
        if REMARKABLE.search(stated) and not word:
            raise LookupError(f"{name} has the licence {stated!r}: say in WORDS of deploy/sbom.py what follows from it")
        rows.append(f"| {name} | {', '.join(known)} | {stated.replace('|', 'or')} | {word} |")
    return "\n".join(("| package | version | licence | |", "|---|---|---|---|", *rows))


def described(document: dict[str, Any], pins: Sequence[Pin]) -> dict[str, Any]:
    """Return what the tool wrote of an environment with the sums of ``pins`` and the licences that it lacks.

    A component has as many sums as its release has files: one for each system and Python.
    """
    by_release = {(pin.name, pin.version): pin for pin in pins}
    components = [one for one in document["components"] if one["name"] not in OWN_NAMES]
    for component in components:
        pin = by_release.get((canonicalize_name(component["name"]), component["version"]))
        if pin is None:  # pip, and what users have installed beside
            continue
        component.setdefault("licenses", [{"license": {"name": licence(pin.name)}}])
        component.setdefault("externalReferences", []).append(
            {
                "type": "distribution",
                "url": f"{component['purl']}#{LOCK.name}" if "purl" in component else LOCK.name,
                "comment": f"files of the release that {LOCK.name} allows",
                "hashes": [{"alg": "SHA-256", "content": content} for content in pin.hashes],
            }
        )
    return {**document, "components": components}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Write to OUT what is installed beside this Python."""
    words = ["environment", sys.executable, "--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"]
    words += ["--spec-version", SPECIFICATION, "--output-format", "JSON", "--output-reproducible"]
    done = subprocess.run([sys.executable, "-m", "cyclonedx_py", *words], stdout=subprocess.PIPE, check=True)
    document = described(json.loads(done.stdout), read_lock())
    out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with_sums = sum(any("hashes" in ref for ref in one.get("externalReferences", ())) for one in document["components"])
    click.echo(f"{out}: {len(document['components'])} packages, {with_sums} of them with the hashes of {LOCK.name}")


if __name__ == "__main__":
    main()
