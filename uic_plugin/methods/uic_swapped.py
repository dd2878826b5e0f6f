"""`label_source=swap`: UIC within one step, both ways: each of two views labels the other.

1. Both views of every image pass through network and head, and both are learned from.
2. The answers to a view are balanced, so that every class gets an equal share of the batch.
3. These shares are the soft labels of the image's other view.
4. `instance_share` of the loss has finer labels: every image of the step is a class of its own.

No pass and no other network is needed for labels; the bank keeps the answers, for telemetry and for
who looks at the classes.

Source: UIC, Eq. 7, in both directions; balance as in SwAV (Caron et al., 2020, section 3.1).
"""

from __future__ import annotations

import torch

from uic_plugin.methods.options import PseudoLabelOptions
from uic_plugin.methods.uic import UIC
from uic_plugin.pseudo_labels.balanced_labels import moved_prices, priced_shares, sinkhorn_shares
from uic_plugin.pseudo_labels.image_classes import image_class_loss
from uic_plugin.ranks import sum_over_ranks


class SwappedLabels(UIC):
    """Two views that label each other, and smaller crops that learn their labels.

    It replaces `choose_views`, `targets` and `step_loss`, and adds the prices to the weights.

    Attributes:
        prices: (sum of K,) of all heads' classes; None unless they balance labels. A buffer:
            checkpoints keep it, and it is equal on all ranks.
    """

    prices: torch.Tensor | None

    @property
    def _is_swapped(self) -> bool:
        return bool(self.options.label_source == "swap")

    def build_head(self, features_dim: int, options: PseudoLabelOptions, seed: int) -> None:
        """Add the head, and prices of its classes, 0 at first."""
        super().build_head(features_dim, options, seed)
        has_prices = self._is_swapped and self.options.swap_balance == "prices"
        prices = torch.zeros(sum(self.head.sizes)) if has_prices else None
        self.register_buffer("prices", prices)

    def choose_views(self, views: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both views, one below the other."""
        if not self._is_swapped:
            return super().choose_views(views)
        both = torch.cat(views[:2])
        return both, both

    def targets(
        self, index: torch.Tensor, label_logits: torch.Tensor, annotations: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the shares (2 * B, K) that each head has answered to the other view."""
        if not self._is_swapped:
            return super().targets(index, label_logits, annotations)
        balanced = self._balanced(self.head.per_head(label_logits))
        return [shares.roll(len(index), 0) for shares in balanced]

    def step_loss(
        self,
        logits: torch.Tensor,
        targets: list[torch.Tensor],
        embeddings: torch.Tensor,
        views: list[torch.Tensor],
    ) -> torch.Tensor:
        """Return the mean over all crops of the cross-entropy against the other views' labels.

        A small crop learns both views' labels, half each. `instance_share` of the loss is that of
        the large views with every image as a class of its own.
        """
        loss = super().step_loss(logits, targets, embeddings, views)
        small = views[2 : 2 + self.options.small_crops] if self._is_swapped else []
        if small:
            answers = self.head(self._network(torch.cat(small)))[1]
            means = [own.unflatten(0, (2, -1)).mean(0).repeat(len(small), 1) for own in targets]
            # as in SwAV, a view's labels are learned by every other crop, with equal weight
            loss = (loss + len(small) * self._loss(answers, means)) / (1 + len(small))
        share = self.options.instance_share
        if not share:
            return loss
        temperature = self.options.instance_temperature
        return loss.lerp(image_class_loss(embeddings, temperature=temperature).to(loss), share)

    def label_images(self, index: torch.Tensor, logits: torch.Tensor) -> None:
        """Keep the answer to both views together."""
        if self._is_swapped:
            logits = logits.unflatten(0, (2, -1)).mean(0)
        super().label_images(index, logits)

    def _balanced(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the shares (2 * B, K) of each head's classes in each view."""
        options = self.options
        epsilon = options.label_epsilon
        if options.swap_balance == "sinkhorn":
            return sinkhorn_shares(
                parts,
                epsilon=epsilon,
                iterations=options.sinkhorn_iterations,
                total=sum_over_ranks,
            )
        if self.prices is None:
            return [(part.float() / epsilon).softmax(1) for part in parts]
        shares = priced_shares(parts, self.prices, epsilon=epsilon)
        moved = moved_prices(self.prices, shares, rate=options.price_rate, total=sum_over_ranks)
        self.prices.copy_(moved)
        return shares
