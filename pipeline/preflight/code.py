"""Digests of the code that each stage runs: what DVC and resumable training know of it.

A stage's digest covers its module, all of the project that the module imports, directly or not, and the data files that
these modules name; not what the table of stages says it never loads. It changes with what the code says, not with how
it is written: comments, docstrings, formatting and imports for type checkers do not count. The same code has the same
digest in every copy of the project and under every version of Python that the project supports.
"""

import ast
import contextlib
import functools
import gc
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.core.errors import UserError
from pipeline.core.files import sha256, write_bytes, write_json
from pipeline.preflight.stage_table import PROBE, STAGES, StageEntry

PROJECT = Path(__file__).parents[2]
PACKAGES = ("models", "pipeline", "stages")
NOT_COUNTED = frozenset({"pipeline/preflight/stage_table.py"})
"""Files that every stage imports and on which no result depends.

DVC compares the command line of a stage itself; the options and help texts of another must not retrain the teacher.
"""
MADE_FROM = ".made-from"
"""How the name of the hidden file ends that says what the digests were made from."""
DIGEST_LENGTH = 16
"""Hexadecimal digits: short, since DVC prints them in its tables."""


def stage_digest(stage: str) -> str:
    """Return the digest of the code that ``stage`` runs.

    Raises:
        UserError: a file of the project cannot be read or has a syntax error; names file and line.
    """
    return CodeReader(PROJECT).digest(STAGES[stage])


def write_code_digests(path: Path) -> None:
    """Write the digest of each stage but the probe, which always runs, to the JSON file ``path``.

    Beside it a hidden file, which DVC does not know, says from which files it was made: while none of them changes,
    nothing is parsed again.

    Raises:
        UserError: a file of the project cannot be read or has a syntax error; names file and line.
    """
    reader, made_from = CodeReader(PROJECT), path.with_name(f".{path.name}{MADE_FROM}")
    files = reader.files_digest()
    if path.is_file() and made_from.is_file() and made_from.read_bytes() == _made_from(files, path):
        return
    write_json(path, {name: reader.digest(stage) for name, stage in STAGES.items() if name != PROBE})
    write_bytes(made_from, _made_from(files, path))


def _made_from(files: str, path: Path) -> bytes:
    """Return what stands beside the file ``path`` that was made from ``files``; of another content it says nothing."""
    return f"{files} {sha256(path)}\n".encode()


class CodeReader:
    """Reads the code below ``project`` as it is now, each file once."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.files = _files_below(project)
        """All files of the packages, relative to the project."""
        self._data: dict[tuple[str, str], list[str]] = {}
        """The data files, by the package that they lie in and their own name."""
        for name in sorted(self.files):
            if not name.endswith(".py"):
                self._data.setdefault(_package_and_name(name), []).append(name)
        self._contents: dict[str, bytes] = {}
        self._sources: dict[str, Source] = {}
        self._needed: dict[str, frozenset[str]] = {}
        self._matched: dict[str, frozenset[str]] = {}
        self._module_files: dict[str, frozenset[str]] = {}
        self._foreign: dict[str, bool] = {}

    def files_digest(self) -> str:
        """Return a digest of whatever decides about the others: all files, and the modules beside the packages."""
        beside = (path for pattern in ("*.py", "*/__init__.py") for path in self.project.glob(pattern))
        lines = sorted(path.relative_to(self.project).as_posix() for path in beside)
        for name in sorted(self.files):
            try:
                content = hashlib.sha256(self._content(name)).hexdigest()
            except UserError:  # as an editor's lock, a link to nowhere; a stage that needs it has no digest
                content = "unreadable"
            lines.append(f"{name}\0{content}")
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()

    def digest(self, stage: StageEntry) -> str:
        """Return the digest of the code that ``stage`` runs."""
        digest = hashlib.sha256()
        for name in self.stage_files(stage):
            digest.update(f"{name}\0{self._source(name).digest}\n".encode())
        return digest.hexdigest()[:DIGEST_LENGTH]

    def stage_files(self, stage: StageEntry) -> list[str]:
        """Return the files that ``stage`` runs, and the data files that they name, sorted."""
        return self.closure(stage.module, without=stage.never_loads)

    def closure(self, module: str, *, without: Sequence[str] = ()) -> list[str]:
        """Return the files that running ``module`` runs, and the data files that they name, sorted.

        Args:
            without: patterns of files that are left out, with all that is reached through them alone.
        """
        waiting, found = set(self.module_files(module)), set[str]()
        never = frozenset[str]().union(*map(self._matching, without))
        with _without_collecting():
            while waiting:
                name = waiting.pop()
                found.add(name)
                needed = self._needed_by(name)
                left_out = needed & never
                if left_out and (at_once := left_out & self.imported_at_once(name)):
                    raise UserError(
                        f"{name}: imports {min(at_once)} when it is itself imported, which the digest of {module} "
                        "leaves out; import it in a function, or change never_loads in "
                        "pipeline/preflight/stage_table.py"
                    )
                waiting |= needed - left_out - found
        return sorted(found)

    def _matching(self, pattern: str) -> frozenset[str]:
        """Return the files that ``pattern`` matches, as ``PurePath.match`` has it: from the right."""
        if pattern not in self._matched:
            self._matched[pattern] = frozenset(name for name in self.files if PurePosixPath(name).match(pattern))
        return self._matched[pattern]

    def imported_at_once(self, name: str) -> set[str]:
        """Return the files that importing the file ``name`` imports: not those that a function of it would."""
        return {file for module in self._source(name).imports_at_once for file in self.module_files(module)}

    def module_files(self, module: str) -> frozenset[str]:
        """Return the file of ``module`` and the ``__init__`` files of its packages; empty for a foreign module."""
        if module not in self._module_files:
            self._module_files[module] = self._find_module_files(module)
        return self._module_files[module]

    def _find_module_files(self, module: str) -> frozenset[str]:
        parts = module.split(".")
        places = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        candidates = {f"{place}/__init__.py" for place in places} | {f"{places[-1]}.py"}
        return frozenset(candidates & self.files) - NOT_COUNTED

    def _needed_by(self, name: str) -> frozenset[str]:
        """Return the files that the file ``name`` imports or names itself; stages share most of them."""
        if name not in self._needed:
            self._needed[name] = self._find_needed(name)
        return self._needed[name]

    def _find_needed(self, name: str) -> frozenset[str]:
        source = self._source(name)
        modules = {*source.imports, *(text for text in source.texts if text.startswith(_DOTTED))}
        package, _ = _package_and_name(name)
        last_parts = {text.rpartition("/")[2] for text in source.texts}
        data = {file for part in last_parts for file in self._data.get((package, part), ())}
        self._refuse_foreign(name, source)
        return frozenset({file for module in modules for file in self.module_files(module)} | data)

    def _refuse_foreign(self, name: str, source: "Source") -> None:
        """Raise UserError where the file ``name`` imports code of the project that no digest holds."""
        for module in source.imports:
            if self._is_foreign(module.partition(".")[0]):
                raise UserError(
                    f"{name}: imports {module}, whose changes would rerun no stage; put it into one of the packages "
                    f"{', '.join(PACKAGES)}"
                )

    def _is_foreign(self, top: str) -> bool:
        """Return whether the project has a module or package ``top`` beside its packages."""
        if top not in self._foreign:
            places = () if top in PACKAGES else (f"{top}.py", f"{top}/__init__.py")
            self._foreign[top] = any((self.project / place).is_file() for place in places)
        return self._foreign[top]

    def _source(self, name: str) -> "Source":
        """Return what the file ``name`` says."""
        if name not in self._sources:
            content = self._content(name)
            is_code = name.endswith(".py")
            self._sources[name] = read_source(content, name) if is_code else Source(hashlib.sha256(content).hexdigest())
        return self._sources[name]

    def _content(self, name: str) -> bytes:
        if name not in self._contents:
            try:
                self._contents[name] = (self.project / name).read_bytes()
            except OSError as error:
                raise UserError(f"{name}: cannot be read ({error.strerror})") from error
        return self._contents[name]


_DOTTED = tuple(f"{package}." for package in PACKAGES)
"""How a text begins that names a module of the project, for another process to run."""


def _package_and_name(name: str) -> tuple[str, str]:
    parts = PurePosixPath(name).parts
    return parts[0], parts[-1]


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep the garbage collector from going through syntax trees, over and over, in which there is no circle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _files_below(project: Path) -> frozenset[str]:
    """Return all files of the packages in ``project``.

    Raises:
        UserError: a folder cannot be read, or is a link, behind which no change would be noticed.
    """
    found = []
    for package in PACKAGES:
        for folder, folders, names in os.walk(project / package, onerror=_unreadable):
            folders[:] = [name for name in folders if name != "__pycache__"]
            place = Path(folder).relative_to(project).as_posix()
            for name in folders:
                if (Path(folder) / name).is_symlink():
                    raise UserError(f"{place}/{name}: a link; put the folder itself there, so that its changes count")
            found += [f"{place}/{name}" for name in names]
    return frozenset(found)


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from error


class Source(NamedTuple):
    """What a file says; of a file that is no code its digest alone."""

    digest: str
    imports: frozenset[str] = frozenset()
    """Absolute names of all modules that it imports anywhere, with names that may be attributes of one."""
    imports_at_once: frozenset[str] = frozenset()
    """Those of them that are imported with the file itself, not by a function of it."""
    texts: frozenset[str] = frozenset()
    """Its string constants, some of which may name a file or a module."""


@functools.cache
def read_source(content: bytes, name: str) -> Source:
    """Return what ``content`` says, which is that of the file ``name`` of the project.

    Raises:
        UserError: it has a syntax error; names file and line.
    """
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        raise UserError(
            f"{name}, line {error.lineno or 1}: {error.msg}; no stage runs before this is mended"
        ) from error
    reader = _TreeReader()
    reader.read(tree)
    folder = PurePosixPath(name).parent.parts
    imports = frozenset(module for node in reader.imports for module in _imported(node, folder))
    at_once = frozenset(module for node in reader.imports_at_once for module in _imported(node, folder))
    digest = hashlib.sha256("\0".join(reader.words).encode()).hexdigest()
    return Source(digest, imports, at_once, frozenset(reader.texts))


def _imported(node: ast.Import | ast.ImportFrom, folder: tuple[str, ...]) -> Iterator[str]:
    """Yield the absolute names of what ``node`` imports, in a file of the package ``folder``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    package = folder[: len(folder) - node.level + 1] if node.level else ()
    module = ".".join([*package, *([node.module] if node.module else [])])
    yield module
    yield from (f"{module}.{alias.name}" for alias in node.names)


class _TreeReader:
    """Writes a syntax tree as words, and notes its imports and texts.

    The words are names of node classes and of fields, and values in ASCII. Empty fields are left out, since versions of
    Python add such, and so is what changes nothing.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.imports_at_once: list[ast.Import | ast.ImportFrom] = []
        self.texts: set[str] = set()
        self._functions = 0
        """How many functions what is read lies in."""

    def read(self, node: ast.AST) -> None:
        """Take up ``node`` and all below it."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
            if not self._functions:
                self.imports_at_once.append(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.texts.add(node.value)
        self._functions += isinstance(node, _FUNCTIONS)
        self.words.append(type(node).__name__)
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or field in _OF_NO_EFFECT:
                continue
            self.words.append(field)
            if isinstance(value, list):
                self._read_list(field, value, node)
            elif isinstance(value, ast.AST):
                self.read(value)
            else:
                self.words.append(ascii(value))
        self.words.append(")")
        self._functions -= isinstance(node, _FUNCTIONS)

    def _read_list(self, field: str, items: list[ast.AST], parent: ast.AST) -> None:
        if field in _BLOCKS:
            items = list(_effective(items))
        elif isinstance(parent, ast.JoinedStr):
            items = list(_joined(items))
        self.words.append("[")
        for item in items:
            if isinstance(item, ast.AST):
                self.read(item)
            else:
                self.words.append(ascii(item))
        self.words.append("]")


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_OF_NO_EFFECT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields that follow from the others, or change nothing."""
_BLOCKS = frozenset({"body", "finalbody", "orelse"})
"""Fields that hold statements."""


def _effective(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the ``statements`` that run: no docstrings, and nothing that is meant for type checkers."""
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            if not isinstance(statement.value.value, str):
                yield statement
        elif isinstance(statement, ast.If) and _is_type_checking(statement.test):
            yield from _effective(statement.orelse)
        elif isinstance(statement, ast.ImportFrom) and _of_typing(statement):
            names = [alias for alias in statement.names if alias.name != "TYPE_CHECKING"]
            if names:
                yield ast.ImportFrom("typing", names, 0)
        else:
            yield statement


def _of_typing(statement: ast.ImportFrom) -> bool:
    return statement.module == "typing" and not statement.level


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _joined(parts: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the ``parts`` of an f-string with neighbouring texts made one, which versions of Python cut differently."""
    text = ""
    for part in parts:
        if isinstance(part, ast.Constant):
            text += str(part.value)
            continue
        if text:
            yield ast.Constant(text)
        text = ""
        yield part
    if text:
        yield ast.Constant(text)
