"""The documentation site: ``make docs`` builds it out of the repository's documents, offline and strictly.

Documents are written for whoever reads them in the repository. Here they are copied to where the site has them, with
their links rewritten, and Zensical makes pages of them; the API is read from the docstrings of ``models``. What it
warns of is an error, and so is a link that leads to nothing, or to what is no page.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
ELSEWHERE: Mapping[str, str] = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "models/README.md": "library.md",
    "benchmarks/README.md": "results/index.md",
    "docs/decisions/README.md": "decisions/index.md",
    "LICENSE": "assets/LICENSE.txt",
}
"""Where the site has documents that do not lie in docs, or are called otherwise there."""
RESULTS = "benchmarks/results/"
"""Below it lie documents and figures of results, which the site has below ``results``."""
LINK = re.compile(
    r"^```.*?^```|`[^`\n]+`|"  # code, which is left as it is
    r"(?P<before>\]\(|(?:src|srcset|href)=\")(?P<target>[^)\s\"#]*)(?P<anchor>#[^)\s\"]*)?(?=[)\"])",
    re.DOTALL | re.MULTILINE,
)
NAV: list[Any] = [
    {"Home": "index.md"},
    {
        "Tutorials": [
            "tutorials/first-run.md",
            "tutorials/own-photos.md",
            "tutorials/detection.md",
            "tutorials/jetson.md",
            "tutorials/serving.md",
            "tutorials/compare.md",
            "tutorials/own-loop.md",
        ]
    },
    {
        "How to": [
            "how-to/questions.md",
            "how-to/images.md",
            "how-to/boxes.md",
            "how-to/networks-and-weights.md",
            "backbones.md",
            "how-to/training.md",
            "hosts.md",
            "how-to/experiments.md",
            "how-to/compare.md",
            "how-to/results.md",
            "how-to/precisions.md",
            "how-to/packages.md",
            "how-to/versions.md",
            "how-to/tensorrt.md",
            "how-to/serve.md",
            "clients.md",
            "deploy.md",
            "install.md",
            "extending.md",
            "contributing.md",
        ]
    },
    {
        "Reference": [
            "reference/stages.md",
            "reference/methods.md",
            "reference/parameters.md",
            "reference/presets.md",
            "reference/commands.md",
            "reference/tables.md",
            "library.md",
            "api.md",
            "licences.md",
            "changes.md",
        ]
    },
    {
        "Explanations": [
            "explanations/method.md",
            "explanations/proofs.md",
            "explanations/determinism.md",
            "explanations/code.md",
            "security.md",
            "what-was-run.md",
        ]
    },
    {"Results": "results/"},
    {"Decisions": "decisions/"},
]
"""The pages in their order. A folder stands for its index and then all of its pages."""
SETTINGS: Mapping[str, Any] = {
    "site_name": "FM-KT",
    "site_description": "Train a small vision model from a large one by flow matching, and ship it",
    "docs_dir": "docs",
    "site_dir": "site",
    "use_directory_urls": False,
    "theme": {
        "font": False,
        "features": [
            "content.code.copy",
            "navigation.indexes",
            "navigation.tabs",
            "navigation.top",
            "search.highlight",
            "toc.follow",
        ],
        "palette": [
            {"media": "(prefers-color-scheme: light)", "scheme": "default"},
            {"media": "(prefers-color-scheme: dark)", "scheme": "slate"},
        ],
    },
    "extra_css": ["assets/site.css"],
    "extra": {
        "generator": False,
        "polyfills": [{"path": "assets/iframe-worker.js", "type": "text/javascript", "async": False, "defer": False}],
    },
    "plugins": [
        "offline",
        "search",
        {
            "mkdocstrings": {
                "handlers": {
                    "python": {
                        "paths": ["."],
                        "options": {
                            "docstring_style": "google",
                            "heading_level": 3,
                            "merge_init_into_class": True,
                            "separate_signature": True,
                            "show_bases": True,
                            "show_root_heading": True,
                            "show_signature_annotations": True,
                            "show_source": False,
                            "signature_crossrefs": True,
                            "docstring_section_style": "list",
                        },
                    }
                }
            }
        },
    ],
    "markdown_extensions": [
        "attr_list",
        "md_in_html",
        "tables",
        {"toc": {"permalink": True}},
        {"pymdownx.highlight": {"anchor_linenums": False}},
        "pymdownx.inlinehilite",
        "pymdownx.superfences",
    ],
}


def documents() -> dict[Path, str]:
    """Return all documents of the site, as the repository has them, with the place that the site has for each."""
    places = {ROOT / name: place for name, place in ELSEWHERE.items() if name.endswith(".md")}
    for path in [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / RESULTS).rglob("*.md"))]:
        places.setdefault(path, place_of(path))
    return places


def place_of(path: Path) -> str:
    """Return where the site has the file ``path`` of the repository.

    Raises:
        ValueError: there is no such file, or the site has no place for it.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    name = path.relative_to(ROOT).as_posix()
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    if name.startswith(RESULTS):
        place = name.removeprefix("benchmarks/")
        return place.removesuffix("/README.md") + ".md" if place.endswith("/README.md") else place
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    raise ValueError(f"{name} is no page of the site, and no file that it brings along")


def stage(folder: Path) -> list[str]:
    """Copy the documents into ``folder``/docs, with all that they link to, and return their places.

    Raises:
        ValueError: a link leads to nothing, or out of the site; names the document and the link.
    """
    target = folder / "docs"
    shutil.copytree(ROOT / "docs/assets", target / "assets")
    for path, place in documents().items():
        links = functools.partial(_relinked, document=path, place=place, target=target)
        text = LINK.sub(links, path.read_text(encoding="utf-8"))
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        (target / place).write_text(text, encoding="utf-8")
    return list(documents().values())


def _relinked(found: re.Match[str], *, document: Path, place: str, target: Path) -> str:
    to, anchor = found["target"], found["anchor"] or ""
    if not to or not found["before"] or re.match(r"[a-z]+:", to):
        return found[0]
    path = (document.parent / to).resolve()
    try:
        there = place_of(path)
    except ValueError as error:
        raise ValueError(f"{document.relative_to(ROOT)}: the link {to}: {error}") from error
    if path.suffix != ".md":
        (target / there).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / there)
    return found["before"] + Path(os.path.relpath(there, Path(place).parent)).as_posix() + anchor


def navigation(places: list[str]) -> list[Any]:
    """Return the navigation, in which each folder is all of its pages.

    Raises:
        ValueError: a page stands nowhere in it, or there is no such page.
    """
    filled = []
    for entry in NAV:
        ((title, pages),) = entry.items()
        if isinstance(pages, str) and pages.endswith("/"):
            own = sorted(place for place in places if place.startswith(pages))
            pages = sorted(own, key=lambda place: (not place.endswith("/index.md"), place))
        filled.append({title: pages})
    listed = list(pages_of(filled))
    if sorted(listed) != sorted(places):
        missing, unknown = sorted(set(places) - set(listed)), sorted(set(listed) - set(places))
        raise ValueError(f"NAV of deploy/site.py lacks {missing}, and has {unknown}, which are no pages")
    return filled


def pages_of(nav: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation."""
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from [below] if isinstance(below, str) else pages_of(below)


def build(out: Path) -> None:
    """Write the site into ``out``.

    Raises:
        ValueError: a link leads to nothing, or a page stands nowhere in the navigation.
        click.ClickException: the generator found something to complain of; it has been printed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {**SETTINGS, "nav": navigation(stage(folder))}
        (folder / "fmkt").symlink_to(ROOT / "models")  # the name under which it is installed and documented
        with (folder / "mkdocs.yml").open("w", encoding="utf-8") as file:
            YAML().dump(settings, file)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        complaints = done.stdout + done.stderr
        if done.returncode or "arning" in complaints:
            raise click.ClickException(f"the site was not built:\n{complaints}")
        if out.exists():
            shutil.rmtree(out)
        shutil.copytree(folder / "site", out)


@click.command()
@click.argument("out", default="site", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    """Build the site into the folder OUT."""
    try:
        build(out)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out / 'index.html'}: open it in a browser; it needs no network and no server")


if __name__ == "__main__":
    main()
