"""A four-layer convolutional network for small images, to train on a CPU.

The Conv-4 of few-shot learning (Vinyals et al., Matching Networks, 2016), with doubling widths and
global average pooling.
"""

from __future__ import annotations

import torch
from torch import nn


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, BatchNorm, ReLU; max-pooling between them.

    Args:
        width: channels of the first block; each next block doubles them.
        in_channels: channels of the images.
    """

    def __init__(self, width: int = 32, in_channels: int = 3) -> None:
        super().__init__()
        self.layers = {f"conv{i}": f"conv{i}" for i in range(1, 5)}  # see `layer_modules`
        self.conv1 = _block(in_channels, width)
        self.conv2 = _block(width, 2 * width)
        self.conv3 = _block(2 * width, 4 * width)
        self.conv4 = _block(4 * width, 8 * width)
        self.num_features = 8 * width
        self.pool = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, 8 * width) of images (B, C, H, W) of any size."""
        x = self.pool(self.conv1(images))
        x = self.pool(self.conv2(x))
        x = self.pool(self.conv3(x))
        return self.conv4(x).mean((2, 3))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
