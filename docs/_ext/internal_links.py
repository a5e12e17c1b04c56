"""Fails a build whose pages link to a page or an anchor of the site that is not there.

Sphinx checks the references that it resolves itself; links in raw HTML, in Markdown and in what
other extensions write are checked here. Links to other hosts are for ``-b linkcheck``.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import SphinxError


class Page(HTMLParser):
    """Anchors of a page and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Takes note of ``id``, ``href`` and ``src``."""
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def broken(site: Path) -> list[str]:
    """``page: link`` for every link within the site that leads nowhere."""
    pages = {
        path: Page(path.read_text(encoding="utf-8")) for path in site.resolve().rglob("*.html")
    }
    found = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            missing = anchor and target in pages and anchor not in pages[target].anchors
            if not target.exists() or missing:
                found.append(f"{path.relative_to(site.resolve())}: {link}")
    return found


def check(app: Sphinx, exception: Exception | None) -> None:
    """Raises what is broken once the pages are written."""
    if exception is None and app.builder.format == "html":
        found = broken(Path(app.outdir))
        if found:
            raise SphinxError("links that lead nowhere:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the check."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "version": "1"}
