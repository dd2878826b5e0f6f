"""A fixed filter in front of a network that removes the colour.

Source: UIC, section 4.2: "Analogous to DeepCluster, we apply Sobel filter to the input images to
remove color information."
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Sobel(nn.Module):
    """Mean of the colours, then its horizontal and vertical gradient, without parameters.

    Maps images (B, C, H, W) to (B, 2, H, W).
    """

    kernels: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        kernels = torch.stack([horizontal, horizontal.T]).unsqueeze(1)
        self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return gradients (B, 2, H, W) of images (B, C, H, W)."""
        return F.conv2d(images.mean(1, keepdim=True), self.kernels, padding=1)
