"""How seconds and memory of the core grow with the number of images.

make bench
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.benchmark
SIZES = (1_000_000, 10_000_000, 100_000_000)


def measured(what, images, *more):
    program = Path(__file__).with_name("scale.py")
    done = subprocess.run(
        [sys.executable, str(program), what, str(images), "10000", *map(str, more)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", ["boundary", "order"])
@pytest.mark.parametrize("storage", ["memory", "mmap"])
def test_growth_is_nearly_linear(what, storage, tmp_path):
    rows = []
    for images in SIZES:
        folder = tmp_path / str(images)
        folder.mkdir()
        rows.append(measured(what, images, *(("--folder", folder) if storage == "mmap" else ())))
        for path in folder.iterdir():
            path.unlink()
        print(f"\n{json.dumps(rows[-1])}", end="")
    logs = [np.log([row[name] for row in rows]) for name in ("images", "seconds")]
    slope = np.polyfit(*logs, 1)[0]
    per_image = (rows[-1]["peak_gb"] - rows[0]["peak_gb"]) * 1e9 / (SIZES[-1] - SIZES[0])
    print(f"\n{what}, {storage}: seconds grow as N^{slope:.2f}, {per_image:.0f} bytes an image")
    assert slope < 1.25
    assert per_image < 30


def test_a_rank_holds_its_share_of_the_order():
    whole, share = (measured("order", 10_000_000, "--ranks", ranks) for ranks in (1, 8))
    print(f"\nranks 1: {whole['seconds']} s, {whole['peak_gb']} GB; of 8: {share['seconds']} s")
    assert share["share"] == whole["share"] // 8
    assert share["peak_gb"] <= whole["peak_gb"]
