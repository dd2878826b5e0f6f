"""Instance discrimination (Wu, Xiong, Yu and Lin, 2018): every image is a class of its own.

1. An image is remembered as a unit vector, a running mean of its embeddings.
2. A softmax over all images is to find the image that an embedding came from. Where they are
   many, noise-contrastive estimation tells it from some, drawn at random, instead.

Source: sections 3.1 and 3.2 of its paper; without its proximal term, as in the authors' code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from uic_plugin.methods.base import HostMethod, OwnMethod
from uic_plugin.methods.options import InstDiscOptions
from uic_plugin.ranks import all_rows, sum_over_ranks, world_size
from uic_plugin.seeding import derive_seed, make_generator


class InstDisc(OwnMethod, HostMethod):
    """Instance discrimination without a host."""

    name = "instdisc"
    options_class = InstDiscOptions
    options: InstDiscOptions
    memory: torch.Tensor | None
    seed: int

    def build_head(self, features_dim: int, options: InstDiscOptions, seed: int) -> None:
        """Add the embedding."""
        self.options, self.seed = options, seed
        # no buffer: DDP would send it to all ranks in every step, which keep it equal themselves
        self.memory = None
        self.normaliser = 0.0  # of the softmax over all images, 0 before its estimate
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.head = nn.Linear(features_dim, options.embedding_dim)

    def attach_images(self, num_samples: int, fingerprint: str) -> None:
        """Begin the memory of so many images with random directions, (N, D)."""
        self.fingerprint = fingerprint
        if self.memory is None or len(self.memory) != num_samples:
            generator = make_generator(self.seed, "memory")
            shape = (num_samples, self.options.embedding_dim)
            self.memory = F.normalize(torch.randn(shape, generator=generator), dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Return the noise-contrastive loss, plus that of the host's online classifier.

        Args:
            batch: [index (B,), views, annotations (B,)].
            batch_idx: number of the batch within the epoch.
        """
        self.seed_draws(batch_idx)
        index, views, annotations = batch
        view = views if isinstance(views, torch.Tensor) else views[0]
        outs = super().training_step([index, [view], annotations], batch_idx)
        embeddings = F.normalize(self.head(outs["feats"][0]).float(), dim=1)
        loss = self._loss(embeddings, index)
        self._remember(embeddings.detach(), index)
        self.log_loss(loss)
        return self.with_online_loss(loss, outs["loss"], annotations)

    def _loss(self, embeddings: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Return Eq. 2 over all images; or Eq. 7, with `num_negatives` images drawn uniformly."""
        memory, options = self.memory, self.options
        if memory is None:
            raise RuntimeError("the memory is made in setup('fit'), which has not run")
        self.memory = memory = memory.to(embeddings.device)
        num_images, count = len(memory), options.num_negatives
        if count == 0:
            # a copy: the memory changes before the gradient is computed
            return F.cross_entropy(embeddings @ memory.T.clone() / options.temperature, index)
        others = torch.randint(num_images, (len(index), count), device=index.device)
        drawn = torch.cat([index[:, None], others], 1)
        cosines = torch.einsum("bd,bnd->bn", embeddings, memory[drawn])
        exponentials = (cosines / options.temperature).exp()
        if not self.normaliser:  # Eq. 8, from the first batch
            mean = sum_over_ranks(exponentials[:, 1:].detach().mean()) / world_size()
            self.normaliser = float(mean) * num_images
        density = exponentials / self.normaliser
        noise = count / num_images
        is_data = density[:, 0] / (density[:, 0] + noise)
        is_noise = noise / (density[:, 1:] + noise)
        return -(is_data.log() + is_noise.log().sum(1)).mean()

    @torch.no_grad()
    def _remember(self, embeddings: torch.Tensor, index: torch.Tensor) -> None:
        embeddings, index = all_rows(embeddings, index)
        kept = self.options.memory_momentum
        memory: Any = self.memory
        memory[index] = F.normalize(kept * memory[index] + (1 - kept) * embeddings, dim=1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the memory."""
        super().on_save_checkpoint(checkpoint)
        if self.memory is not None:
            checkpoint["instdisc"] = {
                "memory": self.memory.cpu().clone(),
                "normaliser": self.normaliser,
                "fingerprint": self.fingerprint,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the memory; without a dataset (evaluation) weights alone are loaded.

        Raises:
            ValueError: for a memory of other images, or none at all.
        """
        super().on_load_checkpoint(checkpoint)
        if self.memory is None:
            return
        if "instdisc" not in checkpoint:
            raise ValueError(
                "the checkpoint remembers no images, so another method wrote it: resume it with "
                "that method, or start anew"
            )
        state = checkpoint["instdisc"]
        if state["memory"].shape != self.memory.shape:
            raise ValueError(
                f"the checkpoint remembers {len(state['memory'])} images, this dataset has "
                f"{len(self.memory)}: use the dataset that it was trained on"
            )
        if state.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise ValueError(
                "the checkpoint remembers as many images, but others, or in another order: files "
                "were renamed, added or removed; use the dataset that it was trained on"
            )
        self.memory = state["memory"].to(self.memory)
        self.normaliser = float(state["normaliser"])
