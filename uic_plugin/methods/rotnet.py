"""RotNet (Gidaris, Singh and Komodakis, 2018): tell by how much an image has been turned.

Every image goes in as it is and turned by 90, 180 and 270 degrees; four classes, cross-entropy.
Source: section 2 of its paper.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.methods.options import MethodOptions
from uic_plugin.seeding import derive_seed

NUM_ROTATIONS = 4


def rotated(images: torch.Tensor) -> torch.Tensor:
    """Return images (4 B, C, S, S) turned by 0, 90, 180 and 270 degrees, in this order."""
    return torch.cat([torch.rot90(images, quarter, (2, 3)) for quarter in range(NUM_ROTATIONS)])


class RotNet(OwnMethod, HostMethod):
    """RotNet without a host."""

    name = "rotnet"
    seed: int

    def build_head(self, features_dim: int, options: MethodOptions, seed: int) -> None:
        """Add the classifier of rotations."""
        self.options, self.seed = options, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.head = nn.Linear(features_dim, NUM_ROTATIONS)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of the rotations, plus that of an online classifier.

        The online classifier sees the upright images. All rotations pass together: statistics of a
        batch of one rotation would give it away.
        """
        self.seed_draws(batch_idx)
        _, views, annotations = batch
        images = views if isinstance(views, torch.Tensor) else views[0]
        features = self._network(rotated(images))
        turned = torch.arange(NUM_ROTATIONS, device=images.device)
        loss = F.cross_entropy(self.head(features), turned.repeat_interleave(len(images)))
        self.log_loss(loss)
        upright = features[: len(images)].detach()
        online = self.classifier(upright)
        if self.knn_eval:  # the host's online k-NN, as its own step feeds it
            self.knn(train_features=upright, train_targets=annotations)
        probed = F.cross_entropy(online, annotations, ignore_index=-1)
        return self.with_online_loss(loss, probed, annotations)
