"""Settings and results of linear probes.

Source: UIC, section 4.3: max-pooled activations, 32 epochs, learning rate 0.1 divided by ten at
epochs 10, 20 and 30, no weight decay, test on 10 crops.
"""

from __future__ import annotations

from dataclasses import dataclass

# values of a layer; the paper's five dimensions are the nearest that AlexNet can have
TARGET = 9200


@dataclass(frozen=True)
class ProbeSettings:
    """Training of probes; the defaults are the paper's.

    Attributes:
        epochs: passes over the training images.
        lr: learning rate for `batch_size` images; not scaled.
        lr_decay_epochs: epochs after which it is multiplied by `lr_decay`.
        lr_decay: that factor.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        batch_size: images per step, over all processes.
        pooled: number of values to pool a layer to; the nearest that its channels allow.
        crops: 10 or 1, for the final test.
        store_features: keep the pooled features of one centered view of every image in memory,
            and train on these.
        precision: "32" or "bf16", for the frozen network.
        seed: of the probes' weights, the order and the views.
        on_bad_image: "stop" or "skip", see `SeededViews`.
    """

    epochs: int = 32
    lr: float = 0.1
    lr_decay_epochs: tuple[int, ...] = (10, 20, 30)
    lr_decay: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 256
    pooled: int = TARGET
    crops: int = 10
    store_features: bool = False
    precision: str = "32"
    seed: int = 0
    on_bad_image: str = "stop"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "pooled"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "lr_decay", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be a number of at least 0, got {getattr(self, name)}"
                )
        if self.crops not in (1, 10):
            raise ValueError(f"crops must be 1 or 10, got {self.crops}")
        if self.precision not in ("32", "bf16"):
            raise ValueError(f"precision must be 32 or bf16, got {self.precision!r}")


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of one layer's probe.

    Attributes:
        layer: name of the layer.
        features: number of inputs of the probe.
        probe: "last", after the last epoch; "best", after the epoch with the highest top-1 on one
            crop of the test images, which is biased upwards.
        epoch: that epoch, counted from 1.
        crops: crops of each test image, whose softmax outputs are averaged.
        top1, top5: percent of the test images.
    """

    layer: str
    features: int
    probe: str
    epoch: int
    crops: int
    top1: float
    top5: float
