"""The draft of an adapter for stable-pretraining, where that is installed.

pip install stable-pretraining, in an environment of its own: it has no extra here.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "stable_pretraining_uic.py"


@pytest.mark.slow
def test_it_trains_and_its_own_knn_evaluates(digits, tmp_path):
    pytest.importorskip("stable_pretraining", reason="stable-pretraining is not installed")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(digits)],
        cwd=tmp_path,
        env={**os.environ, "SPT_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(re.search(r"k-NN accuracy ([\d.]+)", done.stdout)[1]) > 0.8
    sizes = re.findall(r"head \d: (\d+) classes of 1442 images", done.stdout)
    assert sizes == ["30", "10"]


def test_it_is_short():
    assert len(SCRIPT.read_text().splitlines()) < 150
