"""What a page of classes owes to who works on it: nothing lost, nothing cut off, the focus kept."""

import json

import numpy as np
import pytest
from page_state import save, state

NAME = "English springer spaniel, a dog"


def edit(page, text):
    page.evaluate(f"UIC.edit({text})")


def opened(page, path):
    with page.expect_file_chooser() as chooser:
        page.click("#open")
    chooser.value.set_files(path)


@pytest.mark.parametrize("width", [400, 1200])
def test_a_long_name_is_clipped_and_the_numbers_stay(digits_page, open_page, width):
    page = open_page(digits_page.index, width=width)
    edit(page, json.dumps({"do": "name", "class": 3, "name": NAME * 5}))
    page.wait_for_selector(f'.card[data-class="3"] :text("{NAME}")')
    inside = """all => all.map(e => {
        const [own, around] = [e.getBoundingClientRect(), e.parentElement.getBoundingClientRect()];
        return own.right <= around.right + 0.5;
    })"""
    assert all(page.eval_on_selector_all(".card-text, .card-text > *, .bar-value", inside))
    page.evaluate("location.hash = '#/map'")
    page.wait_for_selector(".legend-item")
    assert all(page.eval_on_selector_all(".legend-item, .legend-item > *", inside))


def test_a_square_image_is_whole_on_a_narrow_screen(digits_page, open_page):
    page = open_page(digits_page.index, "#/image/0", width=400)
    page.wait_for_selector(".photo img")
    frame = page.locator(".photo").bounding_box()
    image = page.locator(".photo img").bounding_box()
    assert image["y"] >= frame["y"]
    assert image["y"] + image["height"] <= frame["y"] + frame["height"]
    assert page.locator("#open").is_visible()
    assert page.locator("#theme").is_visible()


def test_opening_a_file_asks_before_it_replaces_unsaved_edits(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index)
    edit(page, "{ do: 'name', class: 1, name: 'in the file' }")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    file = save(page, tmp_path / "edits.json")
    edit(page, "{ do: 'name', class: 2, name: 'not saved' }")
    page.wait_for_function("() => UIC.edits.list.length === 2")
    opened(page, file)
    page.click("dialog button:has-text('Cancel')")
    assert state(page)["names"] == {"1": "in the file", "2": "not saved"}
    opened(page, file)
    page.click("dialog button:has-text('Replace them')")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    opened(page, file)  # nothing unsaved: no question
    page.wait_for_selector("#toast.shown:has-text('1 edit opened')")
    assert page.locator("dialog").count() == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"do": "move", "images": [], "to": 5_000_000_000}, "edit 1 of it is broken"),
        ({"do": "split", "class": 1, "parts": [None]}, "edit 1 of it is broken"),
        ({"do": "move", "images": ["none.png"], "to": 1}, "edit 1 of it is of none.png"),
    ],
)
def test_edits_that_the_command_would_refuse_are_refused(
    digits_page, open_page, tmp_path, wrong, said
):
    page = open_page(digits_page.index)
    edit(page, "{ do: 'name', class: 1, name: 'kept' }")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    content = json.loads(save(page, tmp_path / "edits.json").read_text())
    (tmp_path / "edits.json").write_text(json.dumps({**content, "edits": [wrong]}))
    opened(page, tmp_path / "edits.json")
    page.wait_for_selector(f"#toast.shown:has-text('{said}')")
    assert state(page)["names"] == {"1": "kept"}


def test_the_save_button_knows_what_was_saved(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index)
    is_unsaved = "document.getElementById('save').classList.contains('main')"
    assert not page.evaluate(is_unsaved)
    edit(page, "{ do: 'name', class: 1, name: 'one' }")
    page.wait_for_function(is_unsaved)
    save(page, tmp_path / "edits.json")
    page.wait_for_function(f"!{is_unsaved}")
    page.keyboard.press("Control+z")
    edit(page, "{ do: 'name', class: 1, name: 'two' }")  # as many edits as were saved
    page.wait_for_function("() => UIC.state.names.get(1) === 'two'")
    assert page.evaluate(is_unsaved)
    save(page, tmp_path / "edits.json")
    page.reload()
    page.wait_for_selector("html[data-paths]")
    assert not page.evaluate(is_unsaved)


def test_two_tabs_share_their_edits(digits_page, open_page):
    first = open_page(digits_page.index)
    second = first.context.new_page()
    second.goto(digits_page.index.resolve().as_uri())
    second.wait_for_selector("html[data-paths]")
    edit(second, "{ do: 'name', class: 1, name: 'from the second' }")
    second.wait_for_function("() => UIC.edits.list.length === 1")
    edit(first, "{ do: 'name', class: 2, name: 'from the first' }")
    both = {"1": "from the second", "2": "from the first"}
    first.wait_for_function("() => UIC.edits.list.length === 2")
    assert state(first)["names"] == both
    second.reload()
    second.wait_for_selector("html[data-paths]")
    assert state(second)["names"] == both


def test_the_focus_stays_where_the_work_is(digits_page, open_page):
    page = open_page(digits_page.index, "#/class/0")
    page.wait_for_selector("section[aria-label='All images'] .tile")
    tiles = page.locator("section[aria-label='All images'] .tile")
    tiles.nth(3).focus()
    image = page.evaluate("document.activeElement.dataset.image")
    page.keyboard.press("w")
    page.wait_for_selector(".tile.wrong")
    page.wait_for_function(f"() => document.activeElement.dataset.image === '{image}'")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#/class/0"
    page.goto(digits_page.index.resolve().as_uri() + "#/")
    page.wait_for_selector(".card")
    page.locator(".card").nth(1).focus()
    number = page.evaluate("document.activeElement.dataset.class")
    page.keyboard.press("n")
    page.fill("dialog input", "mine")
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => UIC.state.names.get({number}) === 'mine'")
    page.wait_for_function(f"() => document.activeElement.dataset.class === '{number}'")


def test_a_merge_with_a_hidden_class_shows_the_result(digits_page, open_page):
    sizes = np.bincount(digits_page.table.labels)
    large, small = int(np.argmax(sizes)), int(np.argmin(sizes))
    page = open_page(digits_page.index)
    edit(page, f"{{ do: 'hide', class: {large}, hidden: true }}")
    page.wait_for_function(f"() => UIC.state.hidden.has({large})")
    page.evaluate(f"UIC.actions.merge([{large}, {small}])")
    page.wait_for_function("() => UIC.state.ids.length === 11")
    assert state(page)["hidden"] == []
    assert page.evaluate(f"UIC.numbersOf({small}).size") == sizes[large] + sizes[small]


def test_enter_alone_merges_and_moves_nothing(digits_page, open_page):
    page = open_page(digits_page.index, "#/class/2")
    page.wait_for_selector("#class-name")
    page.keyboard.press("m")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Enter")
    assert state(page)["edits"] == 0
    page.keyboard.press("Enter")  # the first of the list has the focus now
    page.wait_for_function("() => UIC.edits.list.length === 1")


def test_n_names_the_one_class_that_is_selected(digits_page, open_page):
    page = open_page(digits_page.index)
    page.click('[data-tick="4"]')
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("n")
    page.fill("dialog input", "four")
    page.keyboard.press("Enter")
    page.wait_for_function("() => UIC.state.names.get(4) === 'four'")


def test_the_second_best_class_is_another_one(digits_page, open_page):
    table = digits_page.table
    row = int(np.flatnonzero(table.extra["second"] != table.labels)[0])
    page = open_page(digits_page.index)
    image = page.evaluate("path => UIC.indexOfPath(path)", table.paths[row])
    page.evaluate(f"location.hash = '#/image/{image}'")
    page.wait_for_selector("dt:text-is('Second best')")
    to = int(table.extra["second"][row])
    edit(page, json.dumps({"do": "move", "images": [table.paths[row]], "to": to}))
    page.wait_for_selector(f".image-facts a:text-is('Class {to}')")
    assert page.locator("dt:text-is('Second best')").count() == 0


def test_merged_twins_no_longer_count_as_disagreement(digits, make_page, open_page):
    """Two heads see classes 0 and 1 exchanged: they disagree until the two are one class."""
    folder = digits / "train"
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))[:300]
    made = make_page(folder, paths, 6, with_features=False)
    labels = made.table.labels
    swapped = np.where(labels == 0, 1, np.where(labels == 1, 0, labels))
    twins = np.isin(labels, (0, 1))
    extra = {"head_0": labels, "head_1": swapped, "agreement": np.where(twins, 0.5, 1.0)}
    made = make_page(folder, paths, 6, with_features=False, extra=extra)
    page = open_page(made.index, "#/class/0")
    page.wait_for_selector("#class-name")
    assert page.evaluate("UIC.ordered(0, 'elsewhere').length") == int((labels == 0).sum())
    page.evaluate("UIC.actions.merge([0, 1])")
    page.wait_for_function("() => UIC.state.ids.length === 5 && UIC.store.headLabels")
    left = page.evaluate("[0, 1].find(c => UIC.state.members.has(c))")
    page.evaluate(f"location.hash = '#/class/{left}'")
    page.wait_for_function(f"() => UIC.ordered({left}, 'elsewhere').length === 0")
    assert page.evaluate(f"UIC.numbersOf({left}).stable") == 1


FULL = "() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }"


def test_a_browser_that_is_full_loses_no_edit_of_the_page(digits_page, open_page):
    page = open_page(digits_page.index)
    edit(page, "{ do: 'name', class: 1, name: 'kept' }")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    page.evaluate(FULL)
    edit(page, "{ do: 'name', class: 2, name: 'on the page alone' }")
    page.wait_for_selector("header :text('save them now')")
    edit(page, "{ do: 'name', class: 3, name: 'as well' }")
    page.wait_for_function("() => UIC.edits.list.length === 3")
    assert state(page)["names"] == {"1": "kept", "2": "on the page alone", "3": "as well"}


def test_a_browser_that_is_full_is_told_of_until_the_edits_are_saved(
    digits_page, open_page, tmp_path
):
    page = open_page(digits_page.index)
    page.evaluate(FULL)
    told = page.locator("header :text('save them now')")
    assert not told.is_visible()
    page.evaluate("UIC.actions.merge([1, 2])")  # which has a message of its own
    page.wait_for_selector("#toast.shown:has-text('2 classes are now')")
    assert told.is_visible()
    page.keyboard.press("Control+z")
    assert not told.is_visible()  # there is nothing to be lost
    page.keyboard.press("Control+Shift+z")
    assert told.is_visible()
    save(page, tmp_path / "edits.json")
    assert not told.is_visible()


def test_leaving_the_page_asks_before_edits_are_lost(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index)
    page.locator(".card").first.focus()
    page.keyboard.press("h")  # a page that nobody has touched may not ask
    page.wait_for_function("() => UIC.edits.list.length === 1")
    page.evaluate(FULL)
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    with page.expect_event("dialog") as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    page.seen.errors.clear()
    save(page, tmp_path / "edits.json")
    with page.expect_event("close"):
        page.close(run_before_unload=True)


@pytest.mark.parametrize("address", ["#/image/90000", "#/image/1.5", "#/class/77"])
def test_no_key_edits_what_is_not_on_the_page(digits_page, open_page, address):
    page = open_page(digits_page.index, address)
    page.wait_for_selector("main :text('There is no such')")
    for key in "wmnsh":
        page.keyboard.press(key)
        assert page.locator("dialog").count() == 0, key
    page.wait_for_timeout(100)
    assert state(page)["edits"] == 0


def test_kept_edits_that_cannot_be_read_are_put_aside(digits_page, open_page, tmp_path):
    page = open_page(digits_page.index)
    kept = "Object.entries(localStorage).filter(([k]) => k.startsWith('uic-')).map(e => e[1])"
    broken = []
    for number in (1, 2):  # the second does not take the place of the first
        edit(page, f"{{ do: 'name', class: {number}, name: 'mine' }}")
        edit(page, "{ do: 'wrong', images: [null], wrong: true }")
        broken += [text for text in page.evaluate(kept) if text not in broken]
        page.reload()
        page.wait_for_selector("dialog:has-text('edit 2 of it is broken')")
        assert sorted(page.evaluate(kept)) == sorted(broken)
        assert state(page)["edits"] == 0
        with page.expect_download() as download:
            page.click("dialog button:has-text('Save it')")
        download.value.save_as(tmp_path / "unread.json")
        assert (tmp_path / "unread.json").read_text() == broken[-1]
    page.reload()
    page.wait_for_selector("html[data-paths]")
    assert page.locator("dialog").count() == 0  # told once
