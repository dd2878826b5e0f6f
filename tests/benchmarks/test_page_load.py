"""How long a page of many images takes to open in a real Chromium, all that is in sight drawn.

make bench
"""

import os
import shutil

import numpy as np
import pytest

from uic_plugin.data.labels import LabelTable
from uic_plugin.report.page import write_class_page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [pytest.mark.benchmark, pytest.mark.skipif(not CHROMIUM, reason="no Chromium")]
IN_SIGHT = """() => Promise.all([...document.querySelectorAll('.card .thumb')]
    .filter(e => e.getBoundingClientRect().top < innerHeight)
    .map(e => {
        const image = new Image();
        image.src = e.style.backgroundImage.slice(5, -2);
        return image.decode();
    }))
"""


def write_page(digits, folder, images, classes):
    """A page of links to the digits; labels are drawn, for only their number matters."""
    originals = sorted((digits / "train").rglob("*.png"))
    paths = [f"{k // 1000}/{k}.png" for k in range(images)]
    for k, path in enumerate(paths):
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / path).symlink_to(originals[k % len(originals)])
    draw = np.random.default_rng(0)
    table = LabelTable(
        paths,
        draw.integers(0, classes, images),
        draw.random(images, np.float32),
        draw.random(images, np.float32),
    )
    features = draw.normal(size=(images, 64)).astype(np.float16)
    return write_class_page(
        table, folder / "l.csv", folder / "images", folder / "page", features=features
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("images", "goal"), [(10_000, 2), (100_000, 5), (1_000_000, 5)])
def test_opens(images, goal, digits, tmp_path, benchmark):
    from playwright.sync_api import sync_playwright

    index = write_page(digits, tmp_path, images, 100 if images == 10_000 else 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )

        def open_():
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.goto(index.as_uri())
            page.wait_for_selector("html[data-ready]")
            page.evaluate(IN_SIGHT)
            return page

        page = benchmark.pedantic(open_, rounds=3)
        assert page.locator(".card").count() == 48
        browser.close()
    print(f"\n{images} images: {benchmark.stats.stats.mean:.2f} s, goal {goal} s")
