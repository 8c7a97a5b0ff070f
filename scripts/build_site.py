"""Builds the pages into build/site and checks their links.

    python scripts/build_site.py

Rules:
- The pages are those of docs/ and the Markdown files of the root; README.md is the front page.
  They are written to be read in the repository, so their links are turned to where the site has
  what they lead to. A link to a file that is not part of the site is an error.
- Every internal link of the built site has to lead to a file, and to an anchor if it names one.
  External links are not fetched.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build/pages"
SITE = ROOT / "build/site"
CONFIG = ROOT / "zensical.toml"
FRONT_PAGE = "README.md"
LINK = re.compile(r"(?P<before>\]\(|<img src=\")(?![a-z]+:)(?P<target>[^)\"#]+)")
FENCE = re.compile(r"^(```[a-z]+) .*$", re.MULTILINE)
NOT_PAGES = {"404.html"}


def main() -> None:
    """Gather the pages, build the site, check its links."""
    gather()
    zensical = Path(sys.executable).with_name("zensical")
    command = [str(zensical), "build", "--clean", "--strict", "--config-file", str(CONFIG)]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("docs: the site was not built")
    dead = list(dead_links(SITE))
    if dead:
        sys.exit("\n".join(["docs: dead links in the site:", *dead]))
    sys.stdout.write(f"docs: {SITE.relative_to(ROOT)}/index.html, no dead link\n")


def gather() -> None:
    """Put the pages of the site, and what they show, into build/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for source, name in sorted(sources().items()):
        target = PAGES / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(page(source, name))
        else:
            shutil.copy(ROOT / source, target)


def sources() -> dict[str, str]:
    """The files of the repository that are part of the site, and their names there."""
    at_root = [path.name for path in (*ROOT.glob("*.md"), ROOT / "LICENSE")]
    found = {name: name for name in at_root} | {FRONT_PAGE: "index.md"}
    docs = (path for path in (ROOT / "docs").rglob("*") if path.is_file())
    return found | {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT / "docs").as_posix()
        for path in docs
    }


def page(source: str, name: str) -> str:
    """A page as the generator takes it: its links turned, code blocks without marks for tests."""
    names = sources()
    here = posixpath.dirname(source)

    def turned(link: re.Match[str]) -> str:
        wanted = posixpath.normpath(posixpath.join(here, link["target"]))
        if wanted not in names:
            sys.exit(f"docs: {source} links to {wanted}, which is not part of the site")
        return link["before"] + posixpath.relpath(names[wanted], posixpath.dirname(name) or ".")

    return LINK.sub(turned, FENCE.sub(r"\1", (ROOT / source).read_text()))


class Links(HTMLParser):
    """What a page of the site links to, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag's anchor and link."""
        for key, value in attrs:
            if key == "id" and value:
                self.anchors.add(value)
            elif key in ("href", "src") and value:
                self.targets.append(value)


def dead_links(site: Path) -> Iterator[str]:
    """Each internal link of a built site that leads nowhere."""
    pages = {path: Links(path) for path in sorted(site.rglob("*.html"))}
    for path, links in pages.items():
        for target in () if path.name in NOT_PAGES else links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            known = pages[there].anchors if there in pages else {""}
            if not there.exists() or unquote(parts.fragment) not in known:
                yield f"  {path.relative_to(site)}: {target}"


if __name__ == "__main__":
    main()
