"""What probes see of images: the pooled outputs of a frozen network's layers, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from uic_plugin.data.draws import Draw, Order
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.views import SizedDataset
from uic_plugin.evaluation.pooling import ProbePool
from uic_plugin.evaluation.probe_settings import ProbeSettings
from uic_plugin.networks.layers import layer_outputs, layer_shapes
from uic_plugin.ranks import rank_and_world
from uic_plugin.seeding import make_generator

Batch = tuple[list[torch.Tensor], torch.Tensor]  # outputs (B, D) of each layer, annotations (B,)


class PooledLayers:
    """Pooled outputs of layers, computed anew for each batch or, with `store_features`, once.

    Args:
        encoder: the network, frozen and on the device.
        layers: names for `layer_outputs`.
        image_size: side of the images in pixels.
        settings: of the probes.
        device: of the network.
        num_workers: processes that read images.
        stored: features (N, D) float32 and annotations (N,) int64 of the training images and of the
            test images, of one layer; no image is read then.

    Attributes:
        widths: D of each layer.

    Raises:
        ValueError: for a layer that the network does not have.
    """

    def __init__(
        self,
        encoder: nn.Module,
        layers: Sequence[str],
        *,
        image_size: int,
        settings: ProbeSettings,
        device: torch.device,
        num_workers: int,
        stored: Sequence[tuple[torch.Tensor, torch.Tensor]] | None,
    ) -> None:
        self.encoder, self.layers = encoder, list(layers)
        self.settings, self.device, self.num_workers = settings, device, num_workers
        self._stored: dict[str, tuple[list[torch.Tensor], torch.Tensor]] = {}
        if stored is None:
            shapes = layer_shapes(encoder, self.layers, image_size)
        else:
            shapes = {self.layers[0]: tuple(stored[0][0].shape[1:])}
            self._stored = {
                which: ([features], classes)
                for which, (features, classes) in zip(("train", "test"), stored, strict=True)
            }
        self.pools = [ProbePool(shapes[name], settings.pooled) for name in self.layers]
        self.widths = [pool.num_features for pool in self.pools]

    def train_batches(self, dataset: SizedDataset, epoch: int) -> Iterator[Batch]:
        """Iterate over this rank's whole batches of an epoch, in its order, on the device.

        Args:
            dataset: the training images.
            epoch: from 0; decides the order and the views.
        """
        settings = self.settings
        rank, world = rank_and_world()
        generator = make_generator(settings.seed, "probe order", epoch)
        order = torch.randperm(len(dataset), generator=generator)
        share = order[rank : len(order) // world * world : world]
        size = settings.batch_size // world
        if settings.store_features:
            features, targets = self._whole("train", dataset)
            for index in share.split(size):
                if len(index) == size:
                    yield (
                        [layer[index].to(self.device) for layer in features],
                        targets[index].to(self.device),
                    )
            return
        positions = torch.arange(rank, len(order) // world * world, world)
        draws = _Draws(share, positions, epoch)
        loader = self._loader(dataset, draws, size, drop_last=True)
        for images, targets in loader:
            yield self.of(images), targets.to(self.device)

    def test_batches(self, dataset: SizedDataset, crops: int) -> Iterator[Batch]:
        """Iterate over batches of this rank's share of the test images.

        Args:
            dataset: the test images.
            crops: views of an image that an item has; with more than one the pooled outputs are of
                B x crops views.
        """
        rank, world = rank_and_world()
        share = torch.arange(rank, len(dataset), world)
        if self.settings.store_features and crops == 1:
            features, stored = self._whole("test", dataset)
            for index in share.split(self.settings.batch_size):
                yield [layer[index] for layer in features], stored[index]
            return
        size = max(1, self.settings.batch_size // world // crops)
        for images, targets in self._loader(dataset, share.tolist(), size):
            yield self.of(images.flatten(0, 1) if crops > 1 else images), targets

    @torch.no_grad()
    def of(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the pooled outputs (B, D) float32 of all layers for images (B, 3, H, W)."""
        reduced = self.settings.precision == "bf16"
        context = torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext()
        with context:
            outputs = layer_outputs(self.encoder, images.to(self.device), self.layers)
        return [
            pool(outputs[name].float()) for pool, name in zip(self.pools, self.layers, strict=True)
        ]

    def _whole(self, which: str, dataset: SizedDataset) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the pooled outputs of all images of a dataset, and keep them."""
        if which not in self._stored:
            parts = [
                (self.of(images), targets)
                for images, targets in self._loader(dataset, None, self.settings.batch_size)
            ]
            layers = [torch.cat([p[0][i].cpu() for p in parts]) for i in range(len(self.layers))]
            self._stored[which] = (layers, torch.cat([targets for _, targets in parts]))
        return self._stored[which]

    def _loader(
        self,
        dataset: SizedDataset,
        order: Order | None,
        batch_size: int,
        *,
        drop_last: bool = False,
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


class _Draws(Sampler[int]):
    """Images in a given order, each with its epoch and position for the seed of its view."""

    def __init__(self, order: torch.Tensor, positions: torch.Tensor, epoch: int) -> None:
        self.order, self.positions, self.epoch = order, positions, epoch

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[int]:
        for index, position in zip(self.order.tolist(), self.positions.tolist(), strict=True):
            yield Draw.at(index, self.epoch, position)
