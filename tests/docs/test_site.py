"""The documentation site, built: strictly, whole, and of nothing that has to be fetched."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.conftest import ROOT

SITE = ROOT / "out/site"
# Attributes by which a page loads something.
LOADS = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("object", "data")}


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.loads += [value for key, value in given.items() if (tag, key) in LOADS]


@pytest.fixture(scope="module")
def site() -> dict[Path, Page]:
    """The pages, by their files."""
    done = subprocess.run([ROOT / "scripts/docs"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout + done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(SITE.rglob("*.html"))}


def test_every_link_of_the_site_leads_somewhere(site: dict[Path, Page]) -> None:
    assert len(site) > 30
    lost = []
    for path, page in site.items():
        for link in [*page.links, *page.loads]:
            if link.startswith(("http:", "https:", "mailto:", "javascript:", "data:")):
                continue
            name, _, anchor = link.partition("#")
            # The page of errors is served from any folder: its links begin at the top.
            place = SITE / name.lstrip("/") if name.startswith("/") else path.parent / unquote(name)
            there = (path if not name else place).resolve()
            if there.is_dir():
                there /= "index.html"
            if not there.is_file() or (anchor and there in site and unquote(anchor) not in site[there].ids):
                lost.append(f"{path.relative_to(SITE)}: {link}")
    assert lost == []


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Page]) -> None:
    foreign = {load for page in site.values() for load in page.loads if "//" in load}
    assert foreign == set()
    styles = "\n".join(path.read_text(encoding="utf-8") for path in SITE.rglob("*.css"))
    assert "url(http" not in styles
    assert "@import" not in styles


def test_the_search_finds_what_was_made_from_the_code(site: dict[Path, Page]) -> None:
    index = json.loads((SITE / "search/search_index.json").read_text(encoding="utf-8"))
    words = {entry["location"]: entry["title"] + entry["text"] for entry in index["docs"]}
    assert "minFreeMiB" in words["reference/avatarpool.html#specgpu"]
    assert any("networkPolicies.instanceCIDRs" in text for place, text in words.items() if "reference/chart" in place)
    assert any("/avatar/heartbeat" in text for place, text in words.items() if "reference/rest" in place)
    assert any("--leader-elect" in text or "--lease" in text for place, text in words.items() if "commands" in place)
