"""The project's files that a module imports, directly or not.

``python -m tests.import_closure stages.evaluate`` prints them; without a name, dvc.yaml is brought up to date.
"""

import ast
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "pipeline", "stages")


def imported_modules(path: Path) -> set[str]:
    """Return the absolute names of all modules that the file imports anywhere, with names that may be attributes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_files(name: str) -> set[Path]:
    """Return the file of module ``name`` and the ``__init__`` files of its packages; empty for a foreign module."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return set()
    places = [ROOT.joinpath(*parts[: i + 1]) for i in range(len(parts))]
    candidates = [place / "__init__.py" for place in places] + [places[-1].with_suffix(".py")]
    return {path for path in candidates if path.exists()}


def import_closure(module: str) -> list[str]:
    """Return the project's files that importing ``module`` runs, and the tables beside them that they name, sorted.

    Paths are relative to the project.
    """
    waiting, done = module_files(module), set[Path]()
    while waiting:
        path = waiting.pop()
        done.add(path)
        for name in imported_modules(path):
            waiting |= module_files(name) - done
    done |= {table for path in done for table in path.parent.glob("*.json") if table.name in path.read_text()}
    return sorted(path.relative_to(ROOT).as_posix() for path in done)


def update_dvc_yaml() -> None:
    """Give each stage in dvc.yaml the code that it imports, before the files that it lists besides."""
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = ROOT / "dvc.yaml"
    content = yaml.load(path.read_text(encoding="utf-8"))
    for name, entry in content["stages"].items():
        stage = entry.get("do", entry)
        others = [dep for dep in stage["deps"] if dep.split("/")[0] not in PACKAGES]
        stage["deps"][:] = [*import_closure(f"stages.{name}"), *others]
    yaml.dump(content, path)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*import_closure(sys.argv[1]), sep="\n")
    else:
        update_dvc_yaml()
