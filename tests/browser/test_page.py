"""The page of classes in a real browser: what people do with it."""

import json

import numpy as np
import pytest
from page_state import partition, save, state

from uic_plugin.data.edits import apply_edits
from uic_plugin.data.edits_file import read_edits
from uic_plugin.data.labels import read_labels


def classes(page):
    """Numbers of the classes on the overview, in their order."""
    return page.eval_on_selector_all(".card", "all => all.map(c => Number(c.dataset.class))")


@pytest.mark.parametrize("which", ["digits_page", "cifar_page"])
def test_sort_filter_name_merge_undo_reload_save(which, request, open_page, tmp_path):
    made = request.getfixturevalue(which)
    page = open_page(made.index)
    sizes = np.bincount(made.table.labels)
    by_size = [int(c) for c in np.lexsort((np.arange(len(sizes)), -sizes)) if sizes[c]]
    assert classes(page) == by_size[:48]
    assert f"{len(made.table):,} images" in page.text_content("#summary")

    confidence = np.bincount(made.table.labels, made.table.confidence) / np.maximum(sizes, 1)
    page.select_option("#sort", "confidence")
    shown = confidence[classes(page)]
    assert (np.diff(shown) <= 1e-6).all()
    page.fill("#filter", f"Class {by_size[3]}")
    assert by_size[3] in classes(page)
    page.fill("#filter", "no such class")
    assert classes(page) == []
    page.fill("#filter", "")
    page.select_option("#sort", "size")

    first, second = by_size[0], by_size[1]
    page.click(f'.card[data-class="{first}"]')
    page.wait_for_selector("#class-name")
    assert page.text_content("#class-name") == f"Class {first}"
    assert page.locator("section[aria-label='All images'] .tile").count() >= min(96, sizes[first])
    page.keyboard.press("n")
    page.fill("dialog input", "Nought & co")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.getElementById('class-name').textContent === 'Nought & co'"
    )

    page.keyboard.press("Escape")
    page.wait_for_selector(".cards")
    page.select_option("#sort", "size")
    for number in (first, second):
        page.click(f'[data-tick="{number}"]')
    assert "2 classes selected" in page.text_content("#selection")
    page.click("#selection button:has-text('Merge')")
    page.wait_for_selector(f'.card[data-class="{second}"]', state="detached")
    merged = state(page)
    assert set(merged["labels"].values()) == set(by_size) - {second}

    page.keyboard.press("Control+z")
    page.wait_for_selector(f'.card[data-class="{second}"]')
    assert state(page)["labels"] == dict(
        zip(made.table.paths, made.table.labels.tolist(), strict=True)
    )
    page.keyboard.press("Control+Shift+z")
    page.wait_for_selector(f'.card[data-class="{second}"]', state="detached")
    assert state(page) == merged

    page.reload()
    page.wait_for_selector("html[data-paths]")
    assert state(page) == merged
    assert page.text_content(f'.card[data-class="{first}"] .card-name').startswith("Nought & co")

    saved = save(page, tmp_path / "edits.json")
    done = apply_edits(read_labels(made.labels), read_edits(saved), renumber=False)
    assert dict(zip(done.table.paths, done.table.labels.tolist(), strict=True)) == merged["labels"]
    assert done.table.names == {first: "Nought & co"}


def test_split_move_mark_and_hide_agree_with_the_command(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index, "#/class/3")
    page.click("button:has-text('Split …')")
    page.check("text=Into 3, by their features")
    assert page.locator("dialog .part").count() == 3
    page.click("dialog button.main")
    page.wait_for_function("() => UIC.state.ids.length === 14")

    page.goto(digits_page.index.resolve().as_uri() + "#/class/5")
    page.wait_for_selector("#class-name:text-is('Class 5')")
    tiles = page.locator("section[aria-label='All images'] .tile")
    for k in range(3):
        tiles.nth(k).click(modifiers=["Control"])
    tiles.nth(8).click(modifiers=["Shift"])
    assert "9 images selected" in page.text_content("#selection")
    page.click("#selection button:has-text('Move …')")
    page.fill("dialog input", "my own class")
    page.keyboard.press("Enter")
    page.wait_for_function("() => UIC.state.ids.length === 15")

    tiles = page.locator("section[aria-label='All images'] .tile")
    tiles.nth(0).click()
    page.wait_for_selector(".photo img")
    page.keyboard.press("w")
    page.wait_for_selector("text=Not wrong after all")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".photo img")
    page.keyboard.press("m")
    page.click("dialog .choice >> nth=2")
    page.wait_for_selector("dialog", state="detached")
    page.goto(digits_page.index.resolve().as_uri() + "#/class/7")
    page.wait_for_selector("#class-name:text-is('Class 7')")
    page.keyboard.press("h")
    page.wait_for_function("() => UIC.state.hidden.has(7)")

    now = state(page)
    assert len(now["wrong"]) == 1
    done = apply_edits(read_labels(digits_page.labels), read_edits(save(page, tmp_path / "e.json")))
    table = done.table
    assert partition(now["labels"].items()) == partition(
        zip(table.paths, table.labels.tolist(), strict=True)
    )
    assert sorted(set(table.labels.tolist())) == list(range(15))
    assert list(table.names.values()) == ["my own class"]
    assert [p for p, w in zip(table.paths, table.extra["wrong"], strict=True) if w] == now["wrong"]
    hidden = {p for p, h in zip(table.paths, table.extra["hidden"], strict=True) if h}
    assert hidden == {p for p, c in now["labels"].items() if c == 7}

    while state(page)["edits"]:
        page.keyboard.press("Control+z")
    assert state(page)["labels"] == dict(
        zip(digits_page.table.paths, digits_page.table.labels.tolist(), strict=True)
    )


def test_enter_takes_the_class_whose_number_was_typed(digits_page, open_page):
    page = open_page(digits_page.index, "#/class/5")
    page.wait_for_selector("#class-name:text-is('Class 5')")
    page.locator("section[aria-label='All images'] .tile").nth(0).click(modifiers=["Control"])
    page.click("#selection button:has-text('Move …')")
    page.fill("dialog input", "7")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog", state="detached")
    before = dict(zip(digits_page.table.paths, digits_page.table.labels.tolist(), strict=True))
    now = state(page)["labels"]
    moved = [path for path in before if before[path] != now[path]]
    assert [(before[path], now[path]) for path in moved] == [(5, 7)]  # no new class of that name


def test_edits_are_kept_when_they_cannot_be_shown(digits_page, open_page):
    page = open_page(digits_page.index, "#/class/5")
    page.wait_for_selector("#class-name:text-is('Class 5')")
    page.locator("section[aria-label='All images'] .tile").nth(0).click()
    page.wait_for_selector(".photo img")
    page.keyboard.press("w")
    page.wait_for_selector("text=Not wrong after all")
    page.route("**/paths.js", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("main:has-text('Your edits cannot be shown')")
    assert len(page.seen.errors) == 1  # the file that did not load
    page.seen.errors.clear()
    page.unroute("**/paths.js")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("html[data-paths]")
    assert len(state(page)["wrong"]) == 1


def test_a_merged_class_splits_into_what_it_was(digits_page, open_page):
    page = open_page(digits_page.index)
    page.evaluate("UIC.actions.merge([1, 2])")
    page.wait_for_function("() => UIC.state.ids.length === 11")
    left = page.evaluate("[1, 2].find(c => UIC.state.members.has(c))")
    page.evaluate(f"location.hash = '#/class/{left}'")
    page.wait_for_selector("#class-name")
    page.keyboard.press("s")
    assert page.is_checked("text=As it was before merging")
    page.click("dialog button.main")
    page.wait_for_function("() => UIC.state.ids.length === 12")
    table = digits_page.table
    assert partition(state(page)["labels"].items()) == partition(
        zip(table.paths, table.labels.tolist(), strict=True)
    )


def test_keyboard_alone(digits_page, open_page):
    page = open_page(digits_page.index)
    page.locator(".card").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert "2 classes selected" in page.text_content("#selection")
    page.keyboard.press("m")
    page.wait_for_function("() => UIC.state.ids.length === 11")
    page.keyboard.press("/")
    page.wait_for_function("() => document.activeElement.id === 'filter'")
    page.keyboard.type("class 11")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 1")
    page.keyboard.press("Escape")
    page.locator(".card").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#class-name")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("2")
    page.wait_for_selector("canvas.map")
    page.keyboard.press("3")
    page.wait_for_selector("table.confusion")
    page.keyboard.press("1")
    page.wait_for_selector(".cards")


def test_map_hover_click_and_circle(digits_page, open_page):
    page = open_page(digits_page.index, "#/map")
    canvas = page.locator("canvas.map")
    box = canvas.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.wait_for_selector(".tip:not([hidden])")
    told = page.text_content(".tip strong")
    page.mouse.click(*middle)
    page.wait_for_selector("#class-name")
    assert page.text_content("#class-name") == told
    page.go_back()
    page.wait_for_selector("canvas.map")
    page.click("text=Circle images")
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    for x, y in ((0.99, 0.01), (0.99, 0.99), (0.01, 0.99)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_selector("text=1,442 circled images")
    assert page.evaluate("UIC.selection.images.size") == 1442


def test_image_view(digits_page, open_page):
    page = open_page(digits_page.index, "#/image/40")
    path = page.evaluate("UIC.store.paths[40]")
    page.wait_for_selector(".photo img")
    assert page.evaluate("document.querySelector('.photo img').naturalWidth") == 8
    facts = page.text_content(".image-facts")
    assert path in facts
    row = digits_page.table.paths.index(path)
    assert f"{digits_page.table.confidence[row]:.3f}" in facts
    page.wait_for_selector("section[aria-label='Most similar images'] .tile")
    near = page.eval_on_selector_all(
        "section[aria-label='Most similar images'] .tile",
        "all => all.map(t => UIC.store.paths[t.dataset.image])",
    )
    normalised = digits_page.features / np.linalg.norm(digits_page.features, axis=1, keepdims=True)
    distance = np.linalg.norm(normalised - normalised[row], axis=1)
    true = [digits_page.table.paths[i] for i in np.argsort(distance)[1:25]]
    assert len(set(near) & set(true)) >= 20  # 32 int8 components of 192 dimensions


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["", "#/class/2", "#/image/7", "#/map", "#/folders"])
def test_narrow_light_dark_and_named(digits_page, open_page, address, scheme):
    page = open_page(digits_page.index, address, width=400, height=800, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, input, select, canvas, img')]
            .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('alt')
                || e.textContent.trim() || e.labels?.length || e.title))
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    contrast = page.evaluate(
        """() => {
            const light = (colour) => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(v => v / 255)
                    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const back = light(getComputedStyle(document.body).backgroundColor);
            return [...document.querySelectorAll('h1, .quiet, footer')].map(e => {
                const [a, b] = [light(getComputedStyle(e).color), back].sort((x, y) => y - x);
                return (a + 0.05) / (b + 0.05);
            });
        }"""
    )
    assert min(contrast) >= 4.5  # WCAG 2.1, level AA


def test_nothing_jumps_while_it_loads(digits_page, open_page):
    page = open_page(digits_page.index)
    page.wait_for_timeout(500)
    shift = page.evaluate(
        """() => new Promise(resolve => {
            new PerformanceObserver(list => resolve(
                list.getEntries().reduce((sum, e) => sum + (e.hadRecentInput ? 0 : e.value), 0)
            )).observe({ type: 'layout-shift', buffered: true });
            setTimeout(() => resolve(0), 300);
        })"""
    )
    assert shift < 0.1  # "good", by Core Web Vitals


def test_a_file_of_edits_is_opened_or_refused(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index)
    page.evaluate("UIC.edit({ do: 'name', class: 1, name: 'kept' })")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    good = json.loads(save(page, tmp_path / "edits.json").read_text())
    broken = {
        "not json": "{",
        "no edits": json.dumps({"format": "other"}),
        "other labels": json.dumps({**good, "labels": {"fingerprint": "0", "file": "x.csv"}}),
        "bad edit": json.dumps({**good, "edits": [{"do": "constructor"}]}),
    }
    for name, text in broken.items():
        (tmp_path / "broken.json").write_text(text)
        with page.expect_file_chooser() as chooser:
            page.click("#open")
        chooser.value.set_files(tmp_path / "broken.json")
        page.wait_for_selector("#toast.shown:has-text('Not opened')")
        assert state(page)["names"] == {"1": "kept"}, name
        page.evaluate("document.getElementById('toast').classList.remove('shown')")
    page.keyboard.press("Control+z")
    assert state(page)["names"] == {}
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(tmp_path / "edits.json")
    page.wait_for_function("() => UIC.state.names.get(1) === 'kept'")
