"""The documentation site is built out of the documents, needs no network, and leads everywhere."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

import models
from deploy import site
from tests.helpers import ROOT

CLICKS = 2
"""From the first page to any other."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("zensical") is None:
        pytest.skip("zensical is not installed; make install brings it")
    out = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.site", out], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


class References(HTMLParser):
    """What a page loads by itself, where its links lead, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        self.loaded += [given[name] for name in ("src", "srcset") if name in given]
        if tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "link" and given.get("rel") not in {"canonical", "next", "prev"}:
            self.loaded.append(given.get("href", ""))


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[Path, References]:
    return {page: References(page) for page in built.rglob("*.html") if page.name != "404.html"}


def test_every_document_is_a_page(pages: dict[Path, References], built: Path) -> None:
    expected = {place.removesuffix(".md") + ".html" for place in site.documents().values()}
    assert {page.relative_to(built).as_posix() for page in pages} == expected


def test_a_page_loads_nothing_from_elsewhere_and_what_it_loads_is_there(pages: dict[Path, References]) -> None:
    for page, references in pages.items():
        for target in references.loaded:
            assert not re.match(r"([a-z]+:)?//", target), f"{page.name}: {target}"
            assert target.startswith("data:") or (page.parent / target.split("#")[0]).is_file(), (
                f"{page.name}: {target}"
            )
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", page.read_text()), page.name


def test_every_link_leads_to_a_page_and_an_anchor_of_it(pages: dict[Path, References]) -> None:
    for page, references in pages.items():
        for link in references.links:
            if re.match(r"[a-z]+:", link):
                continue
            to, _, anchor = link.partition("#")
            target = (page.parent / to).resolve() if to else page
            assert target.is_file(), f"{page.name}: {link}"
            assert not anchor or target not in pages or anchor in pages[target].anchors, f"{page.name}: {link}"


def test_every_page_is_two_clicks_away(pages: dict[Path, References], built: Path) -> None:
    reached = {built / "index.html"}
    for _ in range(CLICKS):
        links = {(page.parent / link.split("#")[0]).resolve() for page in reached for link in pages[page].links if link}
        reached |= links & set(pages)
    assert set(pages) - reached == set()


def test_search_knows_what_the_pages_say_without_a_server(built: Path) -> None:
    """A page that was opened from the disk can read no JSON: the same is a script."""
    found = json.loads((built / "search.json").read_text())["items"]
    places = {item["location"].partition("#")[0] for item in found}
    assert {"api.html", "tutorials/jetson.html", "reference/parameters.html"} <= places
    assert any("distill_student" in item["text"] for item in found)
    assert (built / "search.js").read_text().startswith("var __index")
    assert "assets/iframe-worker.js" in (built / "index.html").read_text()


def test_the_api_shows_all_that_the_library_offers(built: Path) -> None:
    text = (built / "api.html").read_text()
    for name in models.__all__:
        assert f'id="fmkt.{name}"' in text or f"fmkt.{name}" in text, name
    assert text.count('class="doc doc-heading"') >= len(models.__all__) - 2


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small repository in the place of this one, with one document."""
    (tmp_path / "docs/assets").mkdir(parents=True)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "docs/index.md").write_text("# Title\n\n[that](#title)\n")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "ELSEWHERE", {})
    return tmp_path


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[x](nowhere.md)", "docs/index.md: the link nowhere.md: there is no such file"),
        ("[x](../setup.py)", "docs/index.md: the link ../setup.py: setup.py is no page of the site"),
        ('<img src="assets/none.svg">', "docs/index.md: the link assets/none.svg: there is no such file"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(documents: Path, tmp_path: Path, link: str, fault: str) -> None:
    (documents / "setup.py").touch()
    (documents / "docs/index.md").write_text(f"# Title\n\n```text\n[kept](as-it-is)\n```\n\n{link}\n")
    with pytest.raises(ValueError, match=re.escape(fault)):
        site.stage(tmp_path / "staged")


def test_links_follow_the_documents_to_their_places(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "ELSEWHERE", {"TOP.md": "pages/top.md"})
    (documents / "docs/assets/a.svg").touch()
    (documents / "benchmarks/results").mkdir()
    (documents / "benchmarks/results/run.json").write_text("{}")
    (documents / "TOP.md").write_text(
        '[i](docs/index.md#title) [r](benchmarks/results/run.json) [w](https://a.b) `](` <img src="docs/assets/a.svg">'
        "\n```text\n[kept](as-it-is)\n```\n"
    )
    assert sorted(site.stage(tmp_path / "staged")) == ["index.md", "pages/top.md"]
    assert (tmp_path / "staged/docs/pages/top.md").read_text() == (
        '[i](../index.md#title) [r](../results/run.json) [w](https://a.b) `](` <img src="../assets/a.svg">'
        "\n```text\n[kept](as-it-is)\n```\n"
    )
    assert (tmp_path / "staged/docs/results/run.json").read_text() == "{}"


def test_a_page_that_stands_nowhere_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"NAV of deploy/site.py lacks \['lost.md'\], and has \[\], which are no pages"
    ):
        site.navigation([*site.documents().values(), "lost.md"])


def test_what_the_generator_warns_of_stops_it(documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An anchor that is not there: links to files are checked before."""
    if find_spec("zensical") is None:
        pytest.skip("zensical is not installed; make install brings it")
    monkeypatch.setattr(site, "NAV", [{"Home": "index.md"}])
    site.build(tmp_path / "site")
    assert (tmp_path / "site/index.html").exists()
    (documents / "docs/index.md").write_text("# Title\n\n[that](#another)\n")
    with pytest.raises(site.click.ClickException, match="anchor does not exist"):
        site.build(tmp_path / "other")
    assert not (tmp_path / "other").exists()
