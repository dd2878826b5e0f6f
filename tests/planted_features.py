"""Features with planted classes, for tests of discovery."""

import numpy as np


def planted(sizes, dim=24, spread=0.25, seed=0):
    """Features around one direction a class, and the class of each."""
    rng = np.random.default_rng(seed)
    centers = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    truth = np.repeat(np.arange(len(sizes)), sizes)
    rows = centers[truth] + spread * rng.normal(size=(len(truth), dim))
    order = rng.permutation(len(truth))
    return rows[order].astype(np.float16), truth[order]
