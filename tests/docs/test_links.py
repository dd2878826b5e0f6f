"""Links of the pages at the root lead somewhere; `mkdocs build --strict` checks those of docs/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)")


def anchors_of(page):
    """Anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        assert (ROOT / target).exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors_of(ROOT / target), f"{page}: {target}#{anchor}"
