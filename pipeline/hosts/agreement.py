"""What must be the same on all hosts that train together, how it is found, and how a difference is said."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.files import Json, sha256
from pipeline.core.libraries import library_versions
from pipeline.hosts.channel import Training

Digest = Callable[[str], str]
"""From a stage to the digest of the code that it runs."""
SAME_COMMIT = "check out the same commit on both, with the same changes"


def params_of(content: Mapping[str, Any], keys: Sequence[str]) -> Json:
    """Return the values that the parameters ``content`` have below the dotted ``keys``, from their full keys."""
    found = dict(_leaves(content, ""))
    return {name: found[name] for name in sorted(found) if any(f"{name}.".startswith(f"{key}.") for key in keys)}


def _leaves(content: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value if isinstance(value, bool | int | float | str | list | None) else str(value)


def files_of(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file that a training reads: below ``inputs``, and those that ``params`` name.

    Args:
        inputs: from the name of an input to its folder or file.

    Returns:
        From ``name/path`` and ``key=`` to digests, so that it does not matter where the project lies.
    """
    found: dict[str, str] = {}
    for name, place in inputs.items():
        paths = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
        found |= {f"{name}/{path.relative_to(place)}": sha256(path) for path in paths if path.is_file()}
    for key, value in params.items():
        path = _file_named(value)
        if path is not None:
            found[f"{key}="] = sha256(path)
    return found


def _file_named(value: object) -> Path | None:
    """Return the file that the parameter ``value`` names, alone or behind its kind (onnx:FILE); or None."""
    if not isinstance(value, str) or not value:
        return None
    candidates = [Path(value).expanduser(), Path(value.partition(":")[2]).expanduser()]
    try:
        return next((path for path in candidates if path.is_file()), None)
    except OSError:  # a text that no file can be called
        return None


def differences(training: Training, *, params: Json, inputs: Mapping[str, Path], digest: Digest) -> Iterator[str]:
    """Yield what is not on this host as the head has it for ``training``, the quickest found first.

    Args:
        params: this host's, as ``params_of`` gives them.
        inputs: as of ``files_of``.
    """
    own = library_versions()
    for name, version in training.libraries.items():
        if own.get(name) != version:
            versions = [found or "not installed" for found in (own.get(name), version)]
            yield f"{name} is {versions[0]}, and {versions[1]} on the head; install the same"
    if digest(training.stage) != training.code:
        yield f"the code of {training.stage} is not that of the head; {SAME_COMMIT}"
    for key in sorted(params.keys() | training.params.keys()):
        here, there = params.get(key), training.params.get(key)
        if here != there:
            yield f"{key} is {_shown(here)}, and {_shown(there)} on the head; give both the same parameters"
            return
    yield from _file_differences(training, params, inputs)


def _file_differences(training: Training, params: Json, inputs: Mapping[str, Path]) -> Iterator[str]:
    needed = {name.partition("/")[0] for name in training.files if not name.endswith("=")}
    own = files_of({name: place for name, place in inputs.items() if name in needed}, params)
    for name, known in sorted(training.files.items()):
        if own.get(name) == known:
            continue
        what = "differs from the head's" if name in own else "is missing"
        if name.endswith("="):
            yield f"{name[:-1]}: the file {_shown(params.get(name[:-1]))} {what}; copy it there from the head"
        else:
            option, _, rest = name.partition("/")
            yield f"{inputs.get(option, Path(option)) / rest} {what}; share the folder, copy it, or use dvc pull"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
