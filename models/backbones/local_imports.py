"""What a Python file of the user's runs: itself, and the files beside it that it imports."""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path


def file_and_function(name: str) -> tuple[Path, str]:
    """Return the file and the function of ``name``, which is ``FILE.py:FUNCTION``.

    Raises:
        ValueError: it has another form, or there is no such file.
    """
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise ValueError(f"got 'python:{name}'; give python:FILE.py:FUNCTION")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"no such file: {path}; a relative path counts from {Path.cwd()}")
    return path, function


def file_digest(path: Path) -> str:
    """Return a digest of the code in ``path`` and in the files beside it that it imports, and these import.

    Comments and formatting do not count.

    Raises:
        ValueError: a file cannot be read, or is no Python.
    """
    trees = {path: _parse(path)}
    waiting = [path]
    while waiting:
        file = waiting.pop()
        for found in _imported(file, trees[file], path.parent):
            if found not in trees:
                trees[found] = _parse(found)
                waiting.append(found)
    texts = sorted(f"{file.relative_to(path.parent)}\n{ast.dump(tree)}" for file, tree in trees.items())
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise ValueError(f"{path}{where}: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"{path}: is no Python ({error})") from error


def _imported(file: Path, tree: ast.Module, folder: Path) -> Iterator[Path]:
    """Yield the files below ``folder`` that the code ``tree`` of ``file`` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else folder
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(base, [*module, alias.name])


def _files(folder: Path, names: list[str]) -> Iterator[Path]:
    """Yield the file of each package and module on the way of ``names``, as far as there are such."""
    for number in range(1, len(names) + 1):
        place = folder.joinpath(*names[:number])
        yield from (file for file in (place.with_name(f"{place.name}.py"), place / "__init__.py") if file.is_file())
