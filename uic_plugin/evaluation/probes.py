"""The paper's linear probes: one linear layer on each layer of a frozen network, all in one pass.

Source: UIC, section 4.3: max-pooled activations, 32 epochs, learning rate 0.1 divided by ten at
epochs 10, 20 and 30, no weight decay, test on 10 crops.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Sampler

from uic_plugin.data.images import fingerprint_of
from uic_plugin.data.views import Draw, view_loader
from uic_plugin.evaluation.distributed import add_over_ranks, rank_and_world
from uic_plugin.evaluation.pooling import TARGET, ProbePool
from uic_plugin.files import replacing
from uic_plugin.networks.layers import layer_outputs, layer_shapes
from uic_plugin.seeding import derive_seed, make_generator

CHECKPOINT_FILE = "probe.ckpt"


@dataclass(frozen=True)
class ProbeSettings:
    """How probes are trained; the defaults are the paper's.

    Attributes:
        epochs: passes over the training images.
        lr: learning rate for `batch_size` images; not scaled.
        lr_decay_epochs: epochs after which it is divided by ten.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: images of a step, over all processes.
        features: values of a layer to pool to; the nearest that its channels allow.
        crops: 10 or 1, of the final test.
        store_features: keep the pooled features of one centred view of every image in memory,
            and train on these.
        precision: "32" or "bf16", of the frozen network.
        seed: of the probes' weights, the order and the views.
        on_bad_image: "stop" or "skip", see `SeededViews`.
    """

    epochs: int = 32
    lr: float = 0.1
    lr_decay_epochs: tuple[int, ...] = (10, 20, 30)
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 256
    features: int = TARGET
    crops: int = 10
    store_features: bool = False
    precision: str = "32"
    seed: int = 0
    on_bad_image: str = "stop"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lr", "momentum", "weight_decay"):
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
        layer: its name.
        features: values that the probe sees.
        probe: "last", after the last epoch; "best", after the epoch with the highest top-1 on one
            crop of the test images, which flatters.
        epoch: that epoch, counted from 1.
        crops: of each test image, their softmax outputs averaged.
        top1, top5: percent of the test images.
    """

    layer: str
    features: int
    probe: str
    epoch: int
    crops: int
    top1: float
    top5: float


class ProbeTrainer:
    """Trains probes on a frozen network and tests them.

    Args:
        encoder: the network; it is put into eval mode and onto the device, its weights take no
            gradient; no weight or statistic changes.
        layers: names for `layer_outputs`.
        train: items (image (3, H, W), annotation), random crops.
        test: the same with one centred crop.
        num_classes: annotated classes.
        image_size: side of the crops in pixels.
        settings: everything else.
        device: where to compute.
        num_workers: processes that read images.

    Raises:
        ValueError: for a layer that the network has not.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: Sequence[str],
        train: Any,
        test: Any,
        *,
        num_classes: int,
        image_size: int,
        settings: ProbeSettings,
        device: torch.device,
        num_workers: int = 0,
    ) -> None:
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"name each layer once, got {', '.join(layers) or 'none'}")
        self.encoder = encoder.to(device).eval().requires_grad_(False)
        self.layers = list(layers)
        self.settings = settings
        self.device = device
        self.num_workers = num_workers
        self.num_classes = num_classes
        self.train_images, self.test_images = train, test
        shapes = layer_shapes(self.encoder, self.layers, image_size)
        self.pools = [ProbePool(shapes[name], settings.features) for name in self.layers]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "probes"))
            self.probes = nn.ModuleList(
                nn.Linear(pool.num_features, num_classes) for pool in self.pools
            )
            for probe in self.probes:
                nn.init.normal_(probe.weight, std=0.01)  # type: ignore[arg-type]
                nn.init.zeros_(probe.bias)  # type: ignore[arg-type]
        self.probes.to(device)
        self.optimizer = torch.optim.SGD(
            self.probes.parameters(),
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.best: list[dict[str, Any]] = [{"top1": -1.0} for _ in self.layers]
        self._stored: dict[str, tuple[list[torch.Tensor], torch.Tensor]] = {}
        world = rank_and_world()[1]
        if settings.batch_size < world or len(train) < settings.batch_size:
            raise ValueError(
                f"a batch of {settings.batch_size} images is too "
                f"{'small for' if settings.batch_size < world else 'large:'} "
                f"{f'{world} processes' if settings.batch_size < world else len(train)}"
                f"{'' if settings.batch_size < world else ' training images'}: set --batch-size"
            )

    def run(
        self,
        folder: Path,
        ten_crops: Any = None,
        on_epoch: Callable[[dict[str, Any]], None] = print,
    ) -> list[ProbeResult]:
        """Train to the last epoch, going on from the checkpoint in `folder`, and test.

        Args:
            folder: where the checkpoint is kept.
            ten_crops: the test images with items (crops (10, 3, H, W), annotation); None tests
                one centred crop alone.
            on_epoch: is given each epoch's row of the history.
        """
        checkpoint = folder / CHECKPOINT_FILE
        if checkpoint.exists():
            self._load(checkpoint)
        model: Callable[..., Any] = _AllProbes(self.probes)
        if rank_and_world()[1] > 1:
            model = DistributedDataParallel(_AllProbes(self.probes))
        while self.epoch < self.settings.epochs:
            row = self._train_epoch(model)
            scores = self._test({"now": self.probes}, self.test_images, crops=1)["now"]
            for layer, (top1, top5) in enumerate(scores):
                name = self.layers[layer]
                row.update({f"{name}_top1": top1, f"{name}_top5": top5})
                if top1 > self.best[layer]["top1"]:
                    state = {k: v.clone() for k, v in self.probes[layer].state_dict().items()}
                    self.best[layer] = {"top1": top1, "epoch": self.epoch, "state": state}
            self.history.append(row)
            if rank_and_world()[0] == 0:
                self._save(checkpoint)
                on_epoch(row)
        return self._results(ten_crops)

    def _train_epoch(self, model: Callable[..., Any]) -> dict[str, Any]:
        settings = self.settings
        decays = sum(self.epoch >= epoch for epoch in settings.lr_decay_epochs)
        lr = settings.lr * 0.1**decays
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums = torch.zeros(len(self.layers) + 1, dtype=torch.float64)
        for features, targets in self._train_batches():
            losses = torch.stack([F.cross_entropy(out, targets) for out in model(features)])
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # each probe's gradient comes from its own loss alone
            self.optimizer.step()
            sums[:-1] += losses.detach().double().cpu()
            sums[-1] += 1
        sums = add_over_ranks(sums)
        self.epoch += 1
        row: dict[str, Any] = {"epoch": self.epoch, "lr": lr}
        for name, loss in zip(self.layers, (sums[:-1] / sums[-1]).tolist(), strict=True):
            row[f"{name}_loss"] = loss
        return row

    def _train_batches(self) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Pooled features and annotations of this rank's batches, in this epoch's order."""
        settings = self.settings
        rank, world = rank_and_world()
        generator = make_generator(settings.seed, "probe order", self.epoch)
        order = torch.randperm(len(self.train_images), generator=generator)
        share = order[rank : len(order) // world * world : world]
        size = settings.batch_size // world
        if settings.store_features:
            features, targets = self._store("train", self.train_images)
            for index in share.split(size):
                if len(index) == size:
                    yield (
                        [layer[index].to(self.device) for layer in features],
                        targets[index].to(self.device),
                    )
            return
        places = torch.arange(rank, len(order) // world * world, world)
        draws = _Draws(share, places, self.epoch)
        loader = self._loader(self.train_images, draws, size, drop_last=True)
        for images, targets in loader:
            yield self._pooled(images), targets.to(self.device)

    @torch.no_grad()
    def _pooled(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Pooled outputs of all layers, float32, from one pass over a batch."""
        reduced = self.settings.precision == "bf16"
        context = torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext()
        with context:
            outputs = layer_outputs(self.encoder, images.to(self.device), self.layers)
        return [
            pool(outputs[name].float()) for pool, name in zip(self.pools, self.layers, strict=True)
        ]

    def _store(self, which: str, dataset: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        if which not in self._stored:
            parts = [
                (self._pooled(images), targets)
                for images, targets in self._loader(dataset, None, self.settings.batch_size)
            ]
            layers = [torch.cat([p[0][i].cpu() for p in parts]) for i in range(len(self.layers))]
            self._stored[which] = (layers, torch.cat([targets for _, targets in parts]))
        return self._stored[which]

    @torch.no_grad()
    def _test(
        self, probes: dict[str, nn.ModuleList], dataset: Any, *, crops: int
    ) -> dict[str, list[tuple[float, float]]]:
        """Top-1 and top-5 in percent of sets of probes, layer by layer, one pass for all."""
        rank, world = rank_and_world()
        correct = {name: torch.zeros(len(self.layers), 2) for name in probes}
        batches: Any
        if self.settings.store_features and crops == 1:
            features, stored = self._store("test", dataset)
            pieces = torch.arange(rank, len(dataset), world).split(self.settings.batch_size)
            batches = (([layer[i] for layer in features], stored[i]) for i in pieces)
        else:
            share = torch.arange(rank, len(dataset), world)
            size = max(1, self.settings.batch_size // world // crops)
            loader = self._loader(dataset, share.tolist(), size)
            batches = (
                (self._pooled(images.flatten(0, 1) if crops > 1 else images), targets)
                for images, targets in loader
            )
        top = min(5, self.num_classes)
        for pooled, targets in batches:
            annotations = targets.to(self.device)
            for name, layers in probes.items():
                for number, probe in enumerate(layers):
                    scores = probe(pooled[number].to(self.device)).softmax(1)
                    scores = scores.view(len(annotations), crops, -1).mean(1)
                    hits = scores.topk(top).indices == annotations[:, None]
                    correct[name][number, 0] += float(hits[:, 0].sum())
                    correct[name][number, 1] += float(hits.sum())
        total = len(dataset)
        return {
            name: [(100 * a / total, 100 * b / total) for a, b in add_over_ranks(count).tolist()]
            for name, count in correct.items()
        }

    def _results(self, ten_crops: Any) -> list[ProbeResult]:
        import copy

        best = copy.deepcopy(self.probes)
        for probe, kept in zip(best, self.best, strict=True):
            probe.load_state_dict(kept["state"])
        tests = [(1, self.test_images)]
        if ten_crops is not None and self.settings.crops == 10:
            tests.append((10, ten_crops))
        results = []
        for crops, dataset in tests:
            scores = self._test({"last": self.probes, "best": best}, dataset, crops=crops)
            for number, layer in enumerate(self.layers):
                epochs = {"last": self.epoch, "best": self.best[number]["epoch"]}
                for name, layers in scores.items():
                    width = self.pools[number].num_features
                    results.append(
                        ProbeResult(layer, width, name, epochs[name], crops, *layers[number])
                    )
        return results

    def _loader(
        self, dataset: Any, order: Any, batch_size: int, *, drop_last: bool = False
    ) -> DataLoader[Any]:
        return view_loader(
            dataset,
            seed=self.settings.seed,
            batch_size=batch_size,
            num_workers=self.num_workers,
            on_bad_image=self.settings.on_bad_image,
            sampler=order,
            drop_last=drop_last,
        )

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must share with the probes that go on from it."""
        return {
            "settings": dataclasses.asdict(self.settings),
            "layers": self.layers,
            "num_classes": self.num_classes,
            "images": [fingerprint_of(self.train_images), fingerprint_of(self.test_images)],
            "views": [
                str(getattr(d, "transform", "")) for d in (self.train_images, self.test_images)
            ],
            "features": [pool.num_features for pool in self.pools],
            "network": weights_fingerprint(self.encoder),
        }

    def _save(self, path: Path) -> None:
        state = {
            "identity": self._identity(),
            "epoch": self.epoch,
            "probes": self.probes.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "history": self.history,
        }
        with replacing(path) as part:
            torch.save(state, part)

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            kept = state["identity"]
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise ValueError(f"{path} is damaged: remove it to start anew") from error
        own = self._identity()
        different = [name for name in own if _plain(own[name]) != _plain(kept.get(name))]
        if different:
            raise ValueError(
                f"{path} holds probes with other {', '.join(different)}: give another --out, or "
                f"remove it to start anew"
            )
        self.probes.load_state_dict(state["probes"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.best, self.history = state["epoch"], state["best"], state["history"]


class _AllProbes(nn.Module):
    def __init__(self, probes: nn.ModuleList) -> None:
        super().__init__()
        self.probes = probes

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        return [probe(x) for probe, x in zip(self.probes, features, strict=True)]


class _Draws(Sampler[int]):
    """Images in a given order, each knowing its epoch and place for the seed of its view."""

    def __init__(self, order: torch.Tensor, places: torch.Tensor, epoch: int) -> None:
        self.order, self.places, self.epoch = order, places, epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        for index, place in zip(self.order.tolist(), self.places.tolist(), strict=True):
            yield Draw.at(index, self.epoch, place)


def weights_fingerprint(network: nn.Module) -> str:
    """Identifies all weights and statistics of a network, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Tuples as lists, which a checkpoint may have made of them."""
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, (list, tuple)) else value
