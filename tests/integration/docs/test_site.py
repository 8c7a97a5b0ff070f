"""The site: which pages it has, how their links are turned, and that a dead link is found."""

import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import build_site
from tests.integration.docs.markdown import DOCUMENTS, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_every_page_is_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())
    pages = {build_site.sources()[path.relative_to(ROOT).as_posix()] for path in DOCUMENTS}
    listed = named(config["project"]["nav"])
    assert sorted(listed) == sorted(pages)


def named(navigation: Any) -> list[str]:
    if isinstance(navigation, str):
        return [navigation]
    below = navigation.values() if isinstance(navigation, dict) else navigation
    return [page for entry in below for page in named(entry)]


def test_links_are_turned_to_where_the_site_has_the_pages() -> None:
    front = build_site.page("README.md", "index.md")
    assert "](kvblock.svg)" in front
    assert "](start.md)" in front
    assert "](CONTRIBUTING.md)" in front
    assert "](docs/" not in front
    assert "](../ARCHITECTURE.md#decisions)" not in front
    assert "](index.md#see-it)" in build_site.page("docs/replay.md", "replay.md")
    assert "](adr/0010-access.md)" in build_site.page("SECURITY.md", "SECURITY.md")


def test_marks_for_the_tests_are_left_out_of_the_site() -> None:
    shown = build_site.page("README.md", "index.md")
    assert "```sh\nkvblock serve" in shown
    assert "```sh server" not in shown


def test_a_link_to_what_is_not_in_the_site_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("[b](../deploy/b.toml)\n")
    monkeypatch.setattr(build_site, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"docs/a\.md links to deploy/b\.toml, which is not part"):
        build_site.page("docs/a.md", "a.md")


def test_dead_links_and_anchors_are_found(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="#gone"></a><img src="no.svg">'
        '<a href="more/b.html#here"></a><a href="more/b.html#there"></a><a href="more/"></a>'
        '<a href="https://example.org/never-fetched"></a>'
    )
    (tmp_path / "more/b.html").write_text('<p id="here"></p><a href="../a.html"></a>')
    assert list(build_site.dead_links(tmp_path)) == [
        "  a.html: #gone",
        "  a.html: no.svg",
        "  a.html: more/b.html#there",
        "  a.html: more/",
    ]
