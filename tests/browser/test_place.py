"""The place in a long list is kept: by edits, by the way back from an image, for the next key."""

import pytest
from page_state import state

ALL = "section[aria-label='All images'] .tile"


@pytest.fixture(scope="module")
def long_page(digits, make_page):
    """1,442 digits in 3 classes: hundreds of images in each."""
    return make_page(digits / "train", _paths(digits), 3, with_features=False)


@pytest.fixture(scope="module")
def wide_page(digits, make_page):
    """1,442 digits in 90 classes."""
    return make_page(digits / "train", _paths(digits), 90, with_features=False)


def _paths(digits):
    folder = digits / "train"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def scroll_to(page, tiles, number):
    """Scroll down until there is the element of this number; return it, in the middle."""
    while tiles.count() <= number:
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(50)
    element = tiles.nth(number)
    element.evaluate("e => e.scrollIntoView({ block: 'center' })")
    page.wait_for_timeout(200)  # cards are drawn, and so get their size, once they are in view
    return element


def settled(page):
    """Let what an edit began come to its end: the focus comes in the next frame."""
    page.evaluate("() => new Promise(done => setTimeout(done, 200))")


def top(element):
    return element.evaluate("e => e.getBoundingClientRect().top")


def test_an_edit_far_down_stays_with_its_image(long_page, open_page):
    page = open_page(long_page.index, "#/class/0")
    tile = scroll_to(page, page.locator(ALL), 300)
    image, before = tile.get_attribute("data-image"), top(tile)
    tile.focus()
    for marks in (1, 0):
        page.keyboard.press("w")
        settled(page)
        assert page.evaluate("document.activeElement.dataset.image") == image
        assert top(page.locator(ALL).nth(300)) == pytest.approx(before, abs=1)
        assert len(state(page)["wrong"]) == marks


def test_the_focus_stays_with_one_of_two_tiles_of_an_image(long_page, open_page):
    page = open_page(long_page.index, "#/class/0")
    page.locator(ALL).nth(2).focus()  # the strip of typical images has it as well
    page.keyboard.press("w")
    settled(page)
    page.keyboard.press("ArrowRight")
    assert page.locator(ALL).nth(3).evaluate("e => e === document.activeElement")


def test_after_an_image_is_moved_the_next_one_has_the_focus(long_page, open_page):
    page = open_page(long_page.index, "#/class/0")
    tile = scroll_to(page, page.locator(ALL), 300)
    after, before = page.locator(ALL).nth(301).get_attribute("data-image"), top(tile)
    tile.focus()
    page.keyboard.press("m")
    page.fill("dialog input", "1")
    page.keyboard.press("Enter")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    settled(page)
    assert page.evaluate("document.activeElement.dataset.image") == after
    assert top(page.locator(ALL).nth(300)) == pytest.approx(before, abs=1)


@pytest.mark.parametrize("place", [30, 75, 89])
def test_an_edit_far_down_stays_with_its_class(wide_page, open_page, place):
    page = open_page(wide_page.index)
    card = scroll_to(page, page.locator(".card"), place)
    number, before = card.get_attribute("data-class"), top(card)
    card.focus()
    page.keyboard.press("n")
    page.fill("dialog input", "mine")
    page.keyboard.press("Enter")
    page.wait_for_function("() => UIC.edits.list.length === 1")
    settled(page)
    assert page.evaluate("document.activeElement.dataset.class") == number
    assert top(page.locator(".card").nth(place)) == pytest.approx(before, abs=1)


@pytest.mark.parametrize("way", ["browser", "page"])
def test_the_way_back_leads_to_the_same_place(long_page, open_page, way):
    page = open_page(long_page.index, "#/class/0")
    tile = scroll_to(page, page.locator(ALL), 300)
    before = top(tile)
    tile.click()
    page.wait_for_selector(".photo img")
    page.go_back() if way == "browser" else page.click("[data-up]")
    page.wait_for_selector(ALL)
    settled(page)
    assert top(page.locator(ALL).nth(300)) == pytest.approx(before, abs=1)


def test_forward_leads_to_the_same_place_too(long_page, open_page):
    page = open_page(long_page.index)
    page.click('.card[data-class="0"]')
    page.wait_for_selector(ALL)
    before = top(scroll_to(page, page.locator(ALL), 300))
    page.go_back()
    page.wait_for_selector(".card")
    page.go_forward()
    page.wait_for_selector(ALL)
    settled(page)
    assert top(page.locator(ALL).nth(300)) == pytest.approx(before, abs=1)


def test_the_way_back_leads_to_the_same_class(wide_page, open_page):
    page = open_page(wide_page.index)
    card = scroll_to(page, page.locator(".card"), 75)
    before = top(card)
    card.click()
    page.wait_for_selector("#class-name")
    page.click("[data-up]")
    page.wait_for_selector(".card")
    settled(page)
    assert top(page.locator(".card").nth(75)) == pytest.approx(before, abs=1)
