"""A new class is not taken for one that the label file names but has no images of."""

import json

import numpy as np
import pytest
from page_state import save

from uic_plugin.data.edits import apply_edits
from uic_plugin.data.edits_file import read_edits
from uic_plugin.data.labels import read_labels
from uic_plugin.report.page.history import History

EMPTY = 8  # the classes have numbers below 6


@pytest.fixture(scope="module")
def headed_page(digits, make_page):
    """355 digits in 6 classes; `second` and a head name another one, which has no images."""
    rng = np.random.default_rng(0)
    second = rng.choice([EMPTY, 0, 1, 2, 3, 4, 5], 355)
    heads = {f"head_{k}": rng.choice([EMPTY, 0, 1, 2, 3, 4, 5], 355) for k in range(2)}
    agreement = np.full(355, 0.5, np.float32)
    extra = {"second": second, **heads, "agreement": agreement}
    return make_page(digits / "val", _paths(digits), 6, with_features=False, extra=extra)


def _paths(digits):
    folder = digits / "val"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def move(page, path, to):
    page.evaluate(f"UIC.edit({json.dumps({'do': 'move', 'images': [path], 'to': to})})")


def second_best(page, path):
    """What the page of an image says of its second-best class."""
    page.evaluate("path => { location.hash = `#/image/${UIC.indexOfPath(path)}`; }", path)
    page.wait_for_function(
        "path => document.querySelector('.path')?.textContent === path", arg=path
    )
    return page.locator("dt:text-is('Second best') + dd").all_inner_texts()


def test_its_number_is_above_those_of_the_second_best_classes(headed_page, open_page):
    page = open_page(headed_page.index, "#/class/0")
    page.locator("section[aria-label='All images'] .tile").first.click(modifiers=["Control"])
    page.click("#selection button:has-text('Move …')")
    page.click("dialog .choice:has-text('A new class')")
    page.wait_for_function("() => UIC.state.ids.length === 7")
    assert page.evaluate("UIC.state.ids.at(-1)") == EMPTY + 1


def test_edits_that_gave_it_such_a_number_are_read_as_the_command_reads_them(
    headed_page, open_page, tmp_path
):
    table = headed_page.table
    of = np.flatnonzero(table.extra["second"] == EMPTY)
    page = open_page(headed_page.index)
    move(page, table.paths[of[0]], EMPTY)
    assert second_best(page, table.paths[of[1]]) == []
    page.evaluate(f"UIC.edit({{ do: 'merge', classes: [0, {EMPTY}], into: {EMPTY} }})")
    page.wait_for_function("() => !UIC.state.members.has(0) && UIC.store.headLabels")
    assert second_best(page, table.paths[of[1]]) == []
    pairs = page.evaluate("UIC.store.paths.map((path, i) => [path, UIC.agreementOf(i)])")
    done = apply_edits(read_labels(headed_page.labels), read_edits(save(page, tmp_path / "e.json")))
    assert dict(pairs) == pytest.approx(
        dict(zip(done.table.paths, done.table.extra["agreement"].tolist(), strict=True))
    )


def test_its_number_is_above_those_of_earlier_epochs(digits, make_page, open_page):
    sizes = np.full((2, EMPTY + 1), 5)
    made = make_page(
        digits / "val",
        _paths(digits),
        6,
        with_features=False,
        history=History([0, 1], sizes, sizes / 10),
    )
    page = open_page(made.index)
    assert page.evaluate("UIC.freshClass()") == EMPTY + 1
