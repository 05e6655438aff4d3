"""What the probe finds for the package: its name, and what is known of the images behind it."""

import importlib.metadata
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import Json
from pipeline.data.sources.fingerprints import newest_day
from pipeline.data.sources.table import SOURCES
from pipeline.package.settings import PackageSettings
from pipeline.params.schema import Params


def package_name(settings: PackageSettings, source: str) -> str:
    """Return what the package is called; where ``settings`` do not say it, it is called after its data set.

    Raises:
        UserError: it has no name, and the images are the user's own.
    """
    if settings.name is not None:
        return settings.name
    if not SOURCES[source].is_one_set:
        raise UserError(
            f"package.name: got null, but images of source {source} are your own, and nothing tells what a model of "
            "them is called; give lower-case letters, digits and hyphens: -S package.name=my-model"
        )
    return f"fmkt-{source.replace('_', '-')}"


def package_facts(params: Params, *, fingerprint: str, earlier: Json) -> Json:
    """Return the package's name, and name, day and origin of the images.

    Args:
        fingerprint: of the images as they are now.
        earlier: what an earlier check found; where the images are the same, their files are not looked at again.

    Raises:
        UserError: as ``package_name``; or the images cannot be read.
    """
    data = params.prepare_data
    name, entry = package_name(params.package, data.source), SOURCES[data.source]
    facts: Json = {"name": name, "data": {"name": data.source, "newest_file": None, "carried_by": None}}
    if entry.carried_by is not None:
        facts["data"]["carried_by"] = f"{entry.carried_by} {importlib.metadata.version(entry.carried_by)}"
    if not entry.is_one_set and data.root is not None:
        known = _newest_file(earlier.get("package")) if earlier.get("data") == fingerprint else None
        day = newest_day(Path(data.root)) if known is None else known
        facts["data"] |= {"name": Path(data.root).resolve().name, "newest_file": day}
    return facts


def _newest_file(facts: object) -> str | None:
    """Return the day that an earlier ``package_facts`` found; None: there was none, or ``facts`` are something else."""
    data = facts.get("data") if isinstance(facts, dict) else None
    day = data.get("newest_file") if isinstance(data, dict) else None
    return day if isinstance(day, str) else None
