"""How much a step of UIC costs beside a supervised step of the same network in the same engine.

make bench

Processor time of a step of `uic pretrain` on one core, Lightning's part included and the reading of
images not: Conv-4, 32 pixels, batch 64, a head of ten classes. The supervised step takes its
targets from the batch and keeps nothing: no bank, no telemetry. Two trainings, in a thread each,
take a step by turns, so that both see the same processor.
"""

import threading
import time

import numpy as np
import pytest

from uic_plugin.hosts.lightning import pl
from uic_plugin.methods import OWN_METHODS
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.settings import set_up_host
from uic_plugin.runs.training import pretrain

pytestmark = pytest.mark.benchmark
EPOCHS = 10  # of 11 steps


class Turns:
    """Lets a number of threads run one after another, until one of them has ended."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count)
        self.whose = threading.Condition()
        self.now, self.count = 0, count

    def take(self, number):
        with self.whose:
            self.whose.wait_for(lambda: self.now % self.count == number, timeout=60)

    def give(self):
        with self.whose:
            self.now += 1
            self.whose.notify_all()


class Clock(pl.Callback):
    """Takes the processor time of every step but those beside an epoch boundary."""

    def __init__(self, turns, number):
        self.turns, self.number, self.seconds = turns, number, []

    def on_train_start(self, trainer, module):
        self.turns.barrier.wait(60)
        loop = trainer.fit_loop.epoch_loop
        advance, clock = loop.advance, time.thread_time

        class Fetched:
            """A batch's fetcher, timed."""

            def __init__(self, fetcher):
                self.fetcher, self.seconds = fetcher, 0.0

            def __getattr__(self, name):
                return getattr(self.fetcher, name)

            def __next__(self):
                started = clock()
                batch = next(self.fetcher)
                self.seconds += clock() - started
                return batch

        def timed(fetcher):
            self.turns.take(self.number)
            fetched, started = Fetched(fetcher), clock()
            try:
                advance(fetched)
            finally:
                seconds = clock() - started - fetched.seconds
                self.turns.give()
            if 1 < loop.batch_idx + 1 < trainer.num_training_batches:
                self.seconds.append(seconds)

        loop.advance = timed


def recipe(method, folder, run_dir):
    return compose_recipe(
        "digits/any",
        [
            f"methods={method}",
            "data.dataset=custom",
            f"data.train_path={folder / 'train'}",
            f"run_dir={run_dir}",
            "augmentations.0.crop_size=32",
            *(["method_kwargs.num_pseudo_classes=10"] if method == "uic" else []),
            "data.num_workers=0",
            "accelerator=cpu",
            f"max_epochs={EPOCHS}",
            "knn_eval.enabled=false",
        ],
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("other", ["supervised", "uic"])  # itself: what the measurement is worth
def test_uic_costs_two_percent_more_than_supervised(digits32, tmp_path, monkeypatch, other):
    set_up_host()
    supervised = OWN_METHODS["supervised"]
    monkeypatch.setattr(supervised, "targets", lambda self, index, logits, known: [known])
    monkeypatch.setattr(supervised, "label_images", lambda self, index, logits: None)
    turns = Turns(2)
    clocks = [Clock(turns, number) for number in range(2)]
    configs = [
        recipe(method, digits32, tmp_path / str(number))
        for number, method in enumerate(("uic", other))
    ]
    threads = [
        threading.Thread(
            target=pretrain,
            args=(cfg,),
            kwargs={"reporter": EpochReporter("test"), "callbacks": (clock,)},
        )
        for cfg, clock in zip(configs, clocks, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uic, beside = (np.array(clock.seconds) for clock in clocks)
    assert len(uic) == len(beside) == EPOCHS * 9
    ratio = np.median(uic) / np.median(beside)
    print(
        f"\nUIC {1000 * np.median(uic):.2f} ms a step, {other} {1000 * np.median(beside):.2f} ms: "
        f"ratio {ratio:.3f}; of pairs {np.median(uic / beside):.3f}, quarters "
        f"{' '.join(f'{np.median(part):.3f}' for part in np.array_split(uic / beside, 4))}"
    )
    assert ratio <= 1.02
