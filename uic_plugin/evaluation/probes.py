"""The paper's linear probes: one linear layer on each layer of a frozen network, all in one pass.

Source: UIC, section 4.3; see `ProbeSettings` for the numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from uic_plugin.data.images import fingerprint_of
from uic_plugin.data.views import SizedDataset
from uic_plugin.evaluation.pooled_layers import PooledLayers
from uic_plugin.evaluation.probe_settings import ProbeResult, ProbeSettings
from uic_plugin.files import save_tensors
from uic_plugin.networks.weights import weights_fingerprint
from uic_plugin.ranks import rank_and_world, sum_over_ranks
from uic_plugin.seeding import derive_seed

CHECKPOINT_FILE = "probe.ckpt"
Row = dict[str, int | float]  # of the history: epoch, lr, and a loss, top-1 and top-5 per layer


class ProbeTrainer:
    """Trains probes on a frozen network and tests them.

    Args:
        encoder: the network; it is moved to the device and put into eval mode without gradients;
            no weight or statistic changes.
        layers: names for `layer_outputs`.
        train: items (image (3, H, W), annotation), random crops.
        test: the same with one centered crop.
        num_classes: number of annotated classes.
        image_size: side of the crops in pixels.
        settings: of the training.
        device: for the network and the probes.
        num_workers: processes that read images.
        stored: features (N, D) float32 and annotations (N,) int64 of the training images and of the
            test images, for probes on these alone: of one layer, and no image is read.

    Raises:
        ValueError: for a layer that the network does not have.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: Sequence[str],
        train: SizedDataset,
        test: SizedDataset,
        *,
        num_classes: int,
        image_size: int,
        settings: ProbeSettings,
        device: torch.device,
        num_workers: int = 0,
        stored: Sequence[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> None:
        if not layers or len(set(layers)) != len(layers):
            raise ValueError(f"name each layer once, got {', '.join(layers) or 'none'}")
        self.encoder = encoder.to(device).eval().requires_grad_(False)
        self.layers = list(layers)
        self.settings = settings
        self.device = device
        self.num_classes = num_classes
        self.train_images, self.test_images = train, test
        self.features = PooledLayers(
            self.encoder,
            self.layers,
            image_size=image_size,
            settings=settings,
            device=device,
            num_workers=num_workers,
            stored=stored,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(settings.seed, "probes"))
            self.probes = nn.ModuleList(
                nn.Linear(width, num_classes) for width in self.features.widths
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
        self.history: list[Row] = []
        self.best: list[dict[str, Any]] = [{"top1": -1.0} for _ in self.layers]
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
        ten_crops: SizedDataset | None = None,
        on_epoch: Callable[[Row], None] = print,
    ) -> list[ProbeResult]:
        """Train to the last epoch, resuming from the checkpoint in `folder`, and test.

        Args:
            folder: of the checkpoint.
            ten_crops: the test images with items (crops (10, 3, H, W), annotation); None to test
                one centered crop only.
            on_epoch: called with each epoch's row of the history.
        """
        checkpoint = folder / CHECKPOINT_FILE
        if checkpoint.exists():
            self._load(checkpoint)
        model: nn.Module = _AllProbes(self.probes)
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

    def _train_epoch(self, model: nn.Module) -> Row:
        settings = self.settings
        decays = sum(self.epoch >= epoch for epoch in settings.lr_decay_epochs)
        lr = settings.lr * settings.lr_decay**decays
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        sums = torch.zeros(len(self.layers) + 1, dtype=torch.float64)
        for features, targets in self.features.train_batches(self.train_images, self.epoch):
            losses = torch.stack([F.cross_entropy(out, targets) for out in model(features)])
            self.optimizer.zero_grad(set_to_none=True)
            losses.sum().backward()  # each probe's gradient depends on its own loss only
            self.optimizer.step()
            sums[:-1] += losses.detach().double().cpu()
            sums[-1] += 1
        sums = sum_over_ranks(sums).cpu()
        self.epoch += 1
        row: Row = {"epoch": self.epoch, "lr": lr}
        for name, loss in zip(self.layers, (sums[:-1] / sums[-1]).tolist(), strict=True):
            row[f"{name}_loss"] = loss
        return row

    @torch.no_grad()
    def _test(
        self, probes: dict[str, nn.ModuleList], dataset: SizedDataset, *, crops: int
    ) -> dict[str, list[tuple[float, float]]]:
        """Return top-1 and top-5 in percent of sets of probes, layer by layer, in one pass."""
        correct = {name: torch.zeros(len(self.layers), 2) for name in probes}
        top = min(5, self.num_classes)
        for pooled, targets in self.features.test_batches(dataset, crops):
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
            name: [(100 * a / total, 100 * b / total) for a, b in sum_over_ranks(count).tolist()]
            for name, count in correct.items()
        }

    def _results(self, ten_crops: SizedDataset | None) -> list[ProbeResult]:
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
                    width = self.features.widths[number]
                    results.append(
                        ProbeResult(layer, width, name, epochs[name], crops, *layers[number])
                    )
        return results

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint must share with the probes that resume from it."""
        return {
            "settings": dataclasses.asdict(self.settings),
            "layers": self.layers,
            "num_classes": self.num_classes,
            "images": [fingerprint_of(self.train_images), fingerprint_of(self.test_images)],
            "views": [
                str(getattr(d, "transform", "")) for d in (self.train_images, self.test_images)
            ],
            "features": self.features.widths,
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
        save_tensors(state, path)

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            kept = state["identity"]
        except Exception as error:  # torch raises many kinds for a foreign or damaged file
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


def _plain(value: object) -> object:
    """Convert tuples to lists, as a checkpoint may have done."""
    if isinstance(value, dict):
        return {name: _plain(child) for name, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, (list, tuple)) else value
