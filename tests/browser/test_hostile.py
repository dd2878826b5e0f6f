"""File names that would like to be code; images that are gone; more images than a page shows."""

import csv

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.labels import LabelTable, write_labels

NAMES = (
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)<",
    '"><svg onload=alert(3)>.png',
    "'); alert(4); ('.png",
    "a&lt;b&amp;c.png",
    "100%25 %41 %zz #hash ?query.png",
    "new\nline\ttab.png",
    "\u202eright-to-left \u65e5\u672c\u8a9e \U0001f642 e\u0301.png",
    "\u2028separator\u2029.png",
    "`${alert(5)}` {{7*7}} {% raw %}.png",
    "back\\slash \\u003c.png",
    "x" * 196 + ".png",
    "not utf-8 \udce9.png",
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, make_page):
    folder = tmp_path_factory.mktemp("hostile") / 'a "b" <i>c & d% \u00fc'
    paths = []
    for number, name in enumerate(NAMES):
        for part in ("one", "<b>two"):
            directory = name.rpartition("/")[0]
            target = folder / part / directory / name.rpartition("/")[2]
            target.parent.mkdir(parents=True, exist_ok=True)
            colour = (20 * number, 255 - 15 * number, 90 if part == "one" else 200)
            Image.new("RGB", (64, 64), colour).save(target, format="png")
            paths.append(target.relative_to(folder).as_posix())
    return make_page(folder, sorted(paths), 4, title="</title><script>alert(6)</script>")


@pytest.mark.parametrize("address", ["", "#/class/0", "#/class/1", "#/map", "#/folders"])
def test_nothing_of_a_name_runs(hostile, open_page, address):
    page = open_page(hostile.index, address)
    assert (
        page.evaluate("document.querySelectorAll('svg:not(.sizes), i, b, main script').length") == 0
    )
    assert page.text_content("#title") == "</title><script>alert(6)</script>"


def test_every_name_is_shown_and_its_image_opens(hostile, open_page):
    page = open_page(hostile.index)
    paths = page.evaluate("UIC.store.paths.map(p => [...p].map(c => c.codePointAt(0)))")
    assert sorted("".join(map(chr, path)) for path in paths) == sorted(hostile.table.paths)
    for number in range(len(paths)):
        page.evaluate(f"location.hash = '#/image/{number}'")
        page.wait_for_function(
            f"() => location.hash === '#/image/{number}'"
            " && document.querySelector('.photo img')?.naturalWidth === 64"
            " && document.querySelector('.image-facts .path').textContent"
            f" === UIC.store.paths[{number}]"
        )


def test_names_of_classes_are_text_too(hostile, open_page):
    page = open_page(hostile.index)
    for number, name in enumerate(NAMES[:4]):
        page.evaluate("([c, name]) => UIC.edit({ do: 'name', class: c, name })", [number, name])
    page.wait_for_function("() => UIC.edits.list.length === 4")
    shown = page.eval_on_selector_all(".card-name .clip", "all => all.map(e => e.textContent)")
    assert sorted(shown) == sorted(NAMES[:4])
    page.reload()
    page.wait_for_selector("html[data-paths]")
    page.evaluate("void UIC.actions.mergeWith(0)")
    page.wait_for_selector("dialog .choice")
    page.keyboard.press("Escape")


def test_an_image_that_is_gone_since(tmp_path, open_page):
    from uic_plugin.report.page import write_class_page

    folder = tmp_path / "images"
    folder.mkdir()
    paths = [f"{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        Image.new("RGB", (200, 100), (60 * k, 0, 0)).save(folder / path)
    scores = np.ones(4, np.float32)
    table = LabelTable(paths, np.array([0, 0, 1, 1]), scores, scores)
    index = write_class_page(table, tmp_path / "l.csv", folder, tmp_path / "out")
    (folder / "0.png").unlink()
    page = open_page(index, "#/image/0")
    page.wait_for_selector("text=The file is not there")
    assert page.is_visible(".photo .thumb")
    # the browser says itself that a file is missing; nothing else may be wrong
    assert all("ERR_FILE_NOT_FOUND" in error for error in page.seen.errors)
    page.seen.errors.clear()


def test_a_sample_says_that_it_is_one(digits, make_page, open_page):
    folder = digits / "train"
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    made = make_page(folder, paths, 6, max_images=300)
    page = open_page(made.index)
    assert "a sample of" in page.text_content("#summary")
    assert "of 1,442 images" in page.text_content("#summary")
    sizes = np.bincount(made.table.labels)
    for c, size in enumerate(sizes):
        assert page.text_content(f'.card[data-class="{c}"] .card-name .quiet') == str(size)
    mean = made.table.confidence[made.table.labels == 2].mean()
    assert page.evaluate("UIC.numbersOf(2).confidence") == pytest.approx(mean, abs=1e-4)
    page.evaluate("UIC.actions.merge([0, 1])")
    page.wait_for_function("() => UIC.state.ids.length === 5")
    left = page.evaluate("UIC.state.members.has(0) ? 0 : 1")
    assert page.evaluate(f"UIC.numbersOf({left}).size") == sizes[0] + sizes[1]
    page.evaluate(f"location.hash = '#/class/{left}'")
    page.wait_for_selector("text=A sample:")
    page.keyboard.press("s")
    page.wait_for_selector("#toast.shown:has-text('only a sample')")


def test_label_file_keeps_hostile_names(hostile, tmp_path):
    write_labels(tmp_path / "again.csv", hostile.table)
    with open(tmp_path / "again.csv", newline="", errors="surrogateescape") as file:
        assert [row["path"] for row in csv.DictReader(file)] == hostile.table.paths
