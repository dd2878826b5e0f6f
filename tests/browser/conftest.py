"""A real Chromium that opens pages from the disk, and pages of real images."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uic_plugin.data.labels import LabelTable, write_labels

CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
)
_QUIET = (
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items):
    reason = None
    if CHROMIUM is None:
        reason = "there is no Chromium: install Debian's package chromium, or set CHROMIUM"
    else:
        try:
            import playwright  # noqa: F401
        except ImportError:
            reason = "there is no playwright: pip install playwright"
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_QUIET))
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page did that a test may not like."""

    errors: list = field(default_factory=list)
    requests: list = field(default_factory=list)

    def check(self):
        assert self.errors == []
        foreign = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert foreign == []


@pytest.fixture
def open_page(chromium):
    """Opens a page in a fresh profile; at the end, nothing may have gone wrong in any of them."""
    opened = []

    def open_(path, address="", *, width=1200, height=800, scheme="light", **options):
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        seen = Seen()
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("dialog", lambda dialog: (seen.errors.append(dialog.message), dialog.dismiss()))
        opened.append((context, seen))
        page.seen = seen
        page.goto(Path(path).resolve().as_uri() + address)
        page.wait_for_selector("html[data-paths]")
        return page

    yield open_
    for context, seen in opened:
        context.close()
        seen.check()


def label_by_pixels(folder, paths, num_classes, seed=0):
    """Labels by k-means of small versions of the images, and these as features."""
    from sklearn.cluster import MiniBatchKMeans

    features = np.empty((len(paths), 8 * 8 * 3), np.float32)
    for row, path in enumerate(paths):
        with Image.open(folder / path) as image:
            features[row] = np.asarray(image.convert("RGB").resize((8, 8)), np.float32).ravel()
    features /= 255
    model = MiniBatchKMeans(num_classes, n_init=3, random_state=seed).fit(features)
    closeness = np.exp(-model.transform(features) * 2)
    p = closeness / closeness.sum(1, keepdims=True)
    order = np.argsort(-p, axis=1)
    score = np.take_along_axis(p, order, 1).astype(np.float32)
    table = LabelTable(
        list(paths),
        order[:, 0].astype(np.int64),
        score[:, 0],
        -(p * np.log(p)).sum(1).astype(np.float32),
        {"second": order[:, 1].astype(np.int64), "second_confidence": score[:, 1]},
    )
    return table, features


@dataclass
class Made:
    """A page and what it was made of."""

    index: Path
    labels: Path
    table: LabelTable
    folder: Path
    features: np.ndarray | None


@pytest.fixture(scope="session")
def make_page(tmp_path_factory):
    from uic_plugin.report.page import PageOptions, write_class_page

    def make(
        folder, paths, num_classes=12, *, with_features=True, extra=None, history=None, **options
    ):
        out = tmp_path_factory.mktemp("page")
        table, features = label_by_pixels(folder, paths, num_classes)
        table.extra.update(extra or {})
        write_labels(out / "labels.csv", table)
        index = write_class_page(
            table,
            out / "labels.csv",
            folder,
            out / "classes",
            features=features if with_features else None,
            history=history,
            options=PageOptions(**options),
        )
        return Made(index, out / "labels.csv", table, folder, features)

    return make


@pytest.fixture(scope="session")
def digits_page(digits, make_page):
    """1,442 digits in 12 classes, with features; not to be changed."""
    folder = digits / "train"
    return make_page(
        folder, sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    )


@pytest.fixture(scope="session")
def cifar_page(make_page):
    """10,000 images of CIFAR-10 in 100 classes, where `uic data cifar10 FOLDER` has put them."""
    folder = Path(os.environ.get("UIC_CIFAR10", "cifar10")).expanduser() / "val"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: uic data cifar10 FOLDER, then UIC_CIFAR10=FOLDER")
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    assert len(paths) == 10_000
    return make_page(folder, paths, 100)
