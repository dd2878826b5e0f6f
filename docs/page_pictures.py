"""Pictures of a page of classes, as README and docs show them.

    uic discover imagenette160/train --classes 10 --out nette --features nette-features
    uic classes nette/labels.parquet imagenette160/train --map tsne \
        --features nette-features --title "6,000 photographs" --out nette-page
    python docs/page_pictures.py nette-page/index.html docs

Needs Playwright (pip install playwright) and a Chromium (CHROMIUM=FILE, or on the PATH). Writes
page_overview, page_class, page_map and page_narrow as WebP of less than 200 kB each.
"""

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

LIMIT = 200_000
LARGEST = "UIC.state.ids.reduce((a, b) => UIC.numbersOf(a).size >= UIC.numbersOf(b).size ? a : b)"
PICTURES = {  # name: address, width, height, scheme
    "page_overview": ("#/", 1280, 860, "light"),
    "page_class": ("#/class/{largest}", 1280, 860, "dark"),
    "page_map": ("#/map", 1280, 800, "light"),
    "page_narrow": ("#/", 400, 800, "dark"),
}


def write(shot, path):
    """Write a picture in the best quality that stays below the limit."""
    with Image.open(io.BytesIO(shot)) as image:
        for quality in range(85, 20, -5):
            out = io.BytesIO()
            image.convert("RGB").save(out, "webp", quality=quality, method=6)
            if out.tell() < LIMIT:
                break
    path.write_bytes(out.getvalue())
    print(f"{path}: {out.tell() / 1000:.0f} kB, quality {quality}")


def main(page_file, out):
    """Take all pictures of one page."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (address, width, height, scheme) in PICTURES.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page = context.new_page()
            page.goto(Path(page_file).resolve().as_uri())
            page.wait_for_selector("html[data-paths]")
            address = address.format(largest=page.evaluate(LARGEST))
            page.evaluate("address => { location.hash = address; }", address)
            page.wait_for_timeout(2000)  # thumbnails and map are drawn
            write(page.screenshot(), Path(out) / f"{name}.webp")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
