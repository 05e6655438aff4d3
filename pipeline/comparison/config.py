"""What a comparison consists of: methods and seeds, as changes to one preset or parameters file."""

import copy
import io
import itertools
import re
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator
from ruamel.yaml import YAML

from pipeline.core.errors import UserError
from pipeline.params.loading import fault_lines, read_yaml
from pipeline.params.overlays import overlays
from pipeline.params.presets import PRESETS, load_preset

Changes = dict[str, Any]
"""From dotted key to value, e.g. ``distill_student.method: metric``."""
Seed = Annotated[int, Field(ge=0), Strict()]
STUDENT = "distill_student."
"""How the keys begin that methods may change: all share data and teacher."""


class Side(NamedTuple):
    """A side of a difference: a method as it deploys, or with one number of steps, as in "fm_kt, K = 1"."""

    method: str
    num_steps: int | None = None
    """K; None: as it deploys, with the calibrated number where it takes steps."""

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the side that is called ``name``."""
        found = re.fullmatch(r"(.+), K = (0|[1-9][0-9]*)", name)
        return cls(name) if found is None else cls(found[1], int(found[2]))

    def __str__(self) -> str:
        """Return its name."""
        return self.method if self.num_steps is None else f"{self.method}, K = {self.num_steps}"


class Comparison(BaseModel):
    """The content of a comparison file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: Annotated[str, Field(min_length=1)]
    preset: str | None = None
    """The preset that all runs start from."""
    params: str | None = None
    """Or the parameters file that they start from, relative to the current folder."""
    changes: Changes
    """For the data, the teacher and every method."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    baseline: str
    """The method from which gains are counted."""
    methods: Annotated[dict[str, Changes], Field(min_length=1)]
    """From a method's name in the table to its own changes."""
    differences: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    """Pairs of names of a ``Side``: a table says by how much the first of each exceeds the second."""
    tune: dict[str, Annotated[list[Any], Field(min_length=2)]] = {}
    """From a key to the values of which each method gets the one that is best on the calibration split."""
    tune_seeds: list[Seed] = []
    """The seeds of the runs that choose it, none of which is in the table."""
    tune_methods: list[str] | None = None
    """The methods whose values are chosen; None: those of all."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if (self.preset is None) == (self.params is None):
            raise ValueError("preset, params: give one of them, the preset or the parameters file to start from")
        if self.baseline not in self.methods:
            raise ValueError(f"baseline: got {self.baseline!r}, which is none of the methods {', '.join(self.methods)}")
        folders = [folder_name(method) for method in self.methods]
        if "" in folders or len(set(folders)) < len(folders):
            raise ValueError(f"methods: got {', '.join(self.methods)}; names must differ in their letters and digits")
        stepping = [method for method in self.methods if Side.parse(method).num_steps is not None]
        if stepping:
            raise ValueError(
                f"methods: got {stepping[0]!r}, which is how differences name a number of steps; give another name"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: got {self.seeds}; give each once")
        for name, keys in (("methods", itertools.chain(*self.methods.values())), ("tune", self.tune)):
            foreign = [key for key in keys if not key.startswith(STUDENT)]
            if foreign:
                raise ValueError(
                    f"{name}: got {foreign[0]}; a method changes distill_student alone, so that all share data and "
                    "teacher"
                )
        return self

    @model_validator(mode="after")
    def _differences_are_of_methods(self) -> Self:
        for pair in self.sides:
            for side in pair:
                if side.method not in self.methods:
                    raise ValueError(
                        f"differences: got {str(side)!r}, which is none of the methods {', '.join(self.methods)}; a "
                        "method with one number of steps is written 'METHOD, K = 1'"
                    )
            if pair[0] == pair[1]:
                raise ValueError(f"differences: got [{pair[0]}, {pair[1]}]; give two methods, or numbers of steps")
        return self

    @model_validator(mode="after")
    def _tuning_is_apart(self) -> Self:
        if not self.tune:
            if self.tune_seeds or self.tune_methods:
                raise ValueError(
                    "tune: missing, so that tune_seeds and tune_methods mean nothing; give keys and values"
                )
            return self
        if not self.tune_seeds or set(self.tune_seeds) & set(self.seeds):
            raise ValueError(
                f"tune_seeds: got {self.tune_seeds}; give at least one, and none of {self.seeds}, which the table shows"
            )
        for name in self.tune_methods or []:
            if name not in self.methods:
                raise ValueError(f"tune_methods: got {name!r}, which is none of the methods {', '.join(self.methods)}")
        for name in self.tuned_methods:
            own = sorted(key for key in self.methods[name] if any(_overlap(key, tuned) for tuned in self.tune))
            if own:
                raise ValueError(
                    f"methods: {name} sets {own[0]}, which is tuned; take it out there, or name the others in "
                    "tune_methods"
                )
        return self

    @model_validator(mode="after")
    def _tuned_values_differ(self) -> Self:
        for first, second in itertools.combinations(self.tune, 2):
            if _overlap(first, second):
                raise ValueError(f"tune: got {first} and {second}, one of which holds the other; give one of them")
        for key, values in self.tune.items():
            if any(values.count(value) > 1 for value in values):
                raise ValueError(f"tune: {key} is {values}; give each value once")
        return self

    @property
    def sides(self) -> list[tuple[Side, Side]]:
        """Return the pairs of ``differences``."""
        return [(Side.parse(first), Side.parse(second)) for first, second in self.differences]

    @property
    def tuned_methods(self) -> list[str]:
        """Return the methods whose values are chosen, in the order of the table."""
        if not self.tune:
            return []
        return [name for name in self.methods if self.tune_methods is None or name in self.tune_methods]

    @property
    def tried_values(self) -> list[Changes]:
        """Return each combination of the values of ``tune``."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]


def _overlap(first: str, second: str) -> bool:
    """Return whether one of two dotted keys is the other, or stands within it."""
    return f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}.")


def folder_name(method: str) -> str:
    """Return the name of ``method`` in lower case, with one hyphen for whatever is no letter, digit or underscore."""
    return re.sub(r"\W+", "-", method.lower()).strip("-")


def described(changes: Changes) -> str:
    """Return ``changes`` of the student in words: "loss: kd, training.epochs: 30"."""
    return ", ".join(f"{key.removeprefix(STUDENT)}: {value}" for key, value in changes.items())


def load_comparison(path: Path) -> Comparison:
    """Return the comparison in the YAML file ``path``.

    ``extends: OTHER`` starts from the comparison OTHER of the same folder: each key stands in place of the other's, but
    for ``changes``, which are added.

    Raises:
        UserError: the file is missing or not YAML, extends what is not there, or a key is unknown, missing or wrong.
    """
    try:
        if not path.exists():
            names = ", ".join(sorted(found.stem for found in path.parent.glob("*.yaml")))
            raise UserError(f"{path}: no such file; there are {names or 'no comparisons there'}")
        return Comparison.model_validate(_content(path))
    except ValidationError as error:
        lines = [f"{path}: {line}" for line in fault_lines(error.errors(), Comparison)]
        raise UserError("\n".join(lines)) from error


def _content(path: Path) -> dict[str, Any]:
    """Return the keys of the comparison in ``path``, with those of the one that it extends."""
    content: dict[str, Any] = {}
    for keys in reversed(overlays(path, "comparison").values()):
        before, added = content.get("changes"), keys.get("changes")
        content |= keys
        if isinstance(before, dict) and isinstance(added, dict):
            content["changes"] = before | added
    if not content:
        raise UserError(f"{path}: holds no comparison; those of a clone are in benchmarks/comparisons")
    return content


def changed_params(comparison: Comparison, changes: Changes) -> str:
    """Return the text of the parameters that ``comparison`` starts from with its own and further ``changes``.

    Raises:
        UserError: there is no such preset or file, or a key does not exist in it.
    """
    if comparison.preset is not None:
        base = f"preset {comparison.preset}"
        content: Any = load_preset(PRESETS, comparison.preset).model_dump(mode="json")
    else:
        base = str(comparison.params)
        if Path(base).parent == PRESETS:
            raise UserError(
                f"params: {base} is a preset, which holds only what differs; write preset: {Path(base).stem}"
            )
        content = read_yaml(Path(base))
    changes = comparison.changes | changes
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = content
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if not isinstance(target, dict) or last not in target:
            known = f"; its section has {', '.join(map(str, target))}" if isinstance(target, dict) else ""
            raise UserError(f"{key}: no such parameter in {base}{known}")
        target[last] = copy.deepcopy(value)  # an anchor stands for one value behind several keys
    package = content.get("package")
    if isinstance(package, dict) and package.get("name", "") is None:
        package["name"] = "compared"  # nothing is packaged here, and the probe asks for the name of one's own images
    execution = content.get("execution")
    if isinstance(execution, dict) and isinstance(execution.get("hosts"), dict):
        execution["hosts"]["num_hosts"] = 1  # runs go side by side here, and other hosts know one file of parameters
    buffer = io.StringIO()
    YAML().dump(content, buffer)
    return buffer.getvalue()
