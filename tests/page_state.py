"""What a page of classes that is open in a browser has now."""


def state(page):
    """Path to class, names, marks: as the page has them now."""
    return page.evaluate(
        """() => ({
            labels: Object.fromEntries(UIC.store.paths.map((p, i) => [p, UIC.state.label[i]])),
            names: Object.fromEntries(UIC.state.names),
            hidden: [...UIC.state.hidden],
            wrong: [...UIC.state.wrong].map(i => UIC.store.paths[i]),
            edits: UIC.edits.list.length,
        })"""
    )


def save(page, path):
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "edits.json"
    download.value.save_as(path)
    return path


def partition(labels):
    """The sets of images that are in one class, whatever its number."""
    groups = {}
    for path, label in labels:
        groups.setdefault(label, set()).add(path)
    return {frozenset(group) for group in groups.values()}
