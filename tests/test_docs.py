"""README and docs: links lead somewhere, no file outside is cited, variables and targets are listed.

`make docs` checks the rest while it builds the site.
"""

import re
from itertools import chain
from pathlib import Path

import pytest

LINK = re.compile(r"\]\(([^)\s]+)\)")
NOTES = ("methods", "design", "house", "style", "rows", "beyond", "peers", "speed")
OUTSIDE = re.compile(rf"\b({'|'.join(NOTES)})\.md|\bresearch/")


@pytest.fixture(scope="module")
def pages(root) -> dict[Path, str]:
    files = chain(root.glob("*.md"), (root / "docs").rglob("*.md"))
    return {file: file.read_text("utf-8") for file in files}


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as MkDocs makes them, and those that a page names itself."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def test_every_link_of_a_page_leads_to_a_file_and_to_one_of_its_headings(pages):
    generated = {"commands.md", "settings.md"}  # whose anchors the site's build checks
    for page, text in pages.items():
        for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link):
                continue
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page}: {link}"
            if anchor and target.name not in generated:
                assert anchor in anchors(pages[target]), f"{page}: {link}"


def test_the_readme_is_short_and_names_a_page_once(pages, root):
    text = pages[root / "README.md"]
    assert text.count("\n") < 120
    links = LINK.findall(text)
    assert len(links) == len(set(links))


def test_no_page_cites_what_is_not_in_the_repository(pages):
    for page, text in pages.items():
        assert not OUTSIDE.search(text), page


def test_every_variable_that_a_user_may_set_is_in_the_reference(pages, root):
    code = "".join(file.read_text("utf-8") for file in (root / "src/longtail").rglob("*.py"))
    own = {
        "LONGTAIL_SETTINGS",
        "LONGTAIL_WANTED",
        "LONGTAIL_ALLOCATION",
    }  # set by Snakemake's main process for its jobs
    listed = set(re.findall(r"`(LONGTAIL_\w+)`", pages[root / "docs/reference/commands.md"]))
    assert set(re.findall(r"LONGTAIL_[A-Z_]+", code)) - own == listed


def test_every_target_of_make_that_is_documented_exists(pages, root):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    page = pages[root / "docs/reference/commands.md"]
    assert set(re.findall(r"^\| `make ([a-z-]+)`", page, re.MULTILINE)) == targets
