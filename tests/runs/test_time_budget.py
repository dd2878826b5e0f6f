"""A training that ends with its seconds, whatever the method and the speed of the machine."""

import pytest

from runs.test_schedules import Rates
from uic_plugin.hosts.lightning import pl
from uic_plugin.report.progress import EpochReporter
from uic_plugin.report.tables import read_csv
from uic_plugin.runs.training import pretrain

GIVEN = ("max_epochs=3", "max_seconds=3", "data.num_workers=0", "accelerator=cpu")


def trained(cfg, *callbacks):
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=callbacks)
    return read_csv(f"{cfg.run_dir}/epochs.csv")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("digits/uic", ["method_kwargs.label_view=center", "method_kwargs.label_init=clusters"]),
        ("digits/simclr", []),
        ("digits/deepcluster", []),
        ("digits/mocov2plus", []),
    ],
)
def test_the_rate_is_at_zero_when_the_seconds_are_over(recipe, name, more):
    watch = Rates()
    rows = trained(recipe(*GIVEN, *more, name=name), watch)
    assert sum(float(row["cpu_seconds"]) for row in rows) == pytest.approx(3, rel=0.05)
    assert len(rows) == 3
    assert sum(int(row["steps"]) for row in rows) == len(watch.rates)
    assert watch.rates == sorted(watch.rates, reverse=True)
    assert watch.rates[-1] < 0.05 * watch.rates[0]
