"""A class of the page is split by the heads' labels, or by k-means of its features."""

import numpy as np
import pytest
from page_state import partition, save, state

from uic_plugin.data.edits import apply_edits
from uic_plugin.data.edits_file import read_edits
from uic_plugin.data.labels import read_labels


@pytest.fixture(scope="module")
def headed_page(digits, make_page):
    """355 digits in 6 classes with the labels of two heads, which are annotations and chance."""
    folder = digits / "val"
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    heads = {
        "head_0": np.array([int(path[0]) for path in paths]),
        "head_1": np.random.default_rng(0).integers(0, 2, len(paths)),
    }
    return make_page(folder, paths, 6, extra=heads)


def split(page, way):
    """Split the open class in the way of this text; return the sizes that were shown before."""
    page.click("button:has-text('Split …')")
    page.check(f"text={way}")
    sizes = [int(text.split()[0]) for text in page.locator("dialog .part .quiet").all_inner_texts()]
    before = page.evaluate("UIC.state.ids.length")
    page.click("dialog button.main")
    page.wait_for_function(f"() => UIC.state.ids.length === {before + len(sizes) - 1}")
    return sizes


def agrees(page, made, path):
    """Whether `uic labels apply` makes the same classes of the saved edits."""
    done = apply_edits(read_labels(made.labels), read_edits(save(page, path)))
    now = partition(state(page)["labels"].items())
    return now == partition(zip(done.table.paths, done.table.labels.tolist(), strict=True))


@pytest.mark.parametrize("head", ["head_0", pytest.param("head_1", marks=pytest.mark.slow)])
def test_by_a_head(headed_page, open_page, tmp_path, head):
    table = headed_page.table
    chosen = int(np.bincount(table.labels).argmax())
    page = open_page(headed_page.index, f"#/class/{chosen}")
    sizes = split(page, f"As {head.replace('_', ' ')} sees it")
    members = np.flatnonzero(table.labels == chosen)
    seen = table.extra[head][members]
    assert sizes == sorted(np.bincount(seen)[np.unique(seen)].tolist(), reverse=True)
    wanted = [(table.paths[i], ("split", int(c))) for i, c in zip(members, seen, strict=True)]
    others = [(p, int(c)) for p, c in zip(table.paths, table.labels, strict=True) if c != chosen]
    assert partition(state(page)["labels"].items()) == partition([*wanted, *others])
    assert agrees(page, headed_page, tmp_path / "edits.json")


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_by_kmeans_of_the_features(headed_page, open_page, tmp_path, count):
    from sklearn.cluster import KMeans

    table = headed_page.table
    chosen = int(np.bincount(table.labels).argmax())
    page = open_page(headed_page.index, f"#/class/{chosen}")
    sizes = split(page, f"Into {count}, by their features")
    assert len(sizes) == count
    assert sum(sizes) == np.count_nonzero(table.labels == chosen)
    now = state(page)["labels"]
    width = page.evaluate("UIC.store.features.width")
    values = page.evaluate("Array.from(UIC.store.features.values)")
    components = np.asarray(values, float).reshape(-1, width)
    shown = page.evaluate("UIC.store.paths")
    old = dict(zip(table.paths, table.labels.tolist(), strict=True))
    members = [i for i, path in enumerate(shown) if old[path] == chosen]
    part = np.unique([now[shown[i]] for i in members], return_inverse=True)[1]
    rows = components[members]
    centers = np.stack([rows[part == k].mean(0) for k in range(count)])
    distances = ((rows[:, None] - centers) ** 2).sum(2)
    assert np.mean(distances.argmin(1) == part) > 0.99  # each lies with its nearest mean
    best = KMeans(count, n_init=10, random_state=0).fit(rows).inertia_
    assert distances[np.arange(len(rows)), part].sum() < 1.02 * best
    assert all(now[path] == old[path] for path in shown if old[path] != chosen)
    assert agrees(page, headed_page, tmp_path / "edits.json")


def test_a_sample_is_not_split(digits, make_page, open_page):
    """A class of which the page shows a part would lose the rest: it says so, and does nothing."""
    folder = digits / "train"
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    made = make_page(folder, paths, 3, max_images=100)
    page = open_page(made.index, "#/class/0")
    page.keyboard.press("s")
    page.wait_for_selector("#toast.shown:has-text('only a sample')")
    assert state(page)["edits"] == 0
