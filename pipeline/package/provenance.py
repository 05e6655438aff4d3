"""Where a package comes from, as it is written into its manifest: version, commit, images."""

import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pipeline.core.files import Json
from pipeline.package.settings import PackageSettings


class Commit(NamedTuple):
    """What git says of the clone in which a package is put together."""

    sha: str | None
    """The commit that is checked out; None: it is not known."""
    changed: tuple[str, ...] = ()
    """Tracked files that are not as it has them."""


UNKNOWN = Commit(None)


def read_commit(folder: Path, *, written: Collection[str] = ()) -> Commit:
    """Return the commit checked out in ``folder``, the root of a clone; unknown without git or a commit of its files.

    Args:
        written: files and folders, as seen from there, that a run writes itself: they differ while it is at work.
    """
    git = shutil.which("git")
    if git is None or _ask(git, folder, "ls-files", "--error-unmatch", "--", "dvc.yaml") is None:
        return UNKNOWN
    sha = _ask(git, folder, "rev-parse", "--verify", "HEAD")
    found = _ask(git, folder, "diff", "--name-only", "-z", "--relative", "--no-ext-diff", "HEAD", "--", ".")
    if sha is None or found is None:
        return UNKNOWN
    places = [Path(place) for place in written]
    names = [name for name in found.split("\0") if name]
    changed = [name for name in names if not any(Path(name).is_relative_to(place) for place in places)]
    return Commit(sha.strip(), tuple(sorted(changed)))


def _ask(git: str, folder: Path, *words: str) -> str | None:
    """Return what git answers in ``folder``, where it writes nothing; None where it fails."""
    command = [git, "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  (a fixed command)
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def describe(settings: PackageSettings, facts: Json, data: Json, commit: Commit) -> Json:
    """Return what stands under ``about`` in the manifest.

    Args:
        facts: what the probe found for the package.
        data: content of data.json.
    """
    splits = {name: data["sha256"].get(f"{name}.safetensors") for name in data["sizes"]}
    if data.get("files_sha256") is not None:  # an index lists paths; what the files hold says more
        splits["train"] = data["files_sha256"]
    return {
        "name": facts["name"] if settings.name is None else settings.name,
        "version": settings.version,
        "licence": settings.licence,
        "commit": commit.sha,
        "changed_files": None if commit.sha is None else list(commit.changed),
        "data": {**facts["data"], "source": data["source"], "num_images": data["sizes"], "sha256": splits},
    }
