"""Max-pooling of a layer's output to about as many values as every other layer's.

Source: UIC, section 4.3: "we use max-pooling to separately reduce the activation dimensions to
9600, 9216, 9600, 9600 and 9216 (conv1-conv5)".
"""

from __future__ import annotations

import math

import torch
from torch import nn

from uic_plugin.evaluation.probe_settings import TARGET


class ProbePool(nn.Module):
    """Max-pool a map (B, C, H, W) or tokens (B, T, C) and flatten; keep vectors (B, D) unchanged.

    The side of the pooled map is the one whose number of values is nearest to the target; no map
    is enlarged. Windows are torch's adaptive ones: for AlexNet's conv5 at 224 pixels they are those
    of its own last pooling.

    Args:
        shape: of the layer's output, without the batch dimension.
        target: desired number of values.

    Attributes:
        num_features: number of output values.
    """

    def __init__(self, shape: tuple[int, ...], target: int = TARGET) -> None:
        super().__init__()
        if target < 1:
            raise ValueError(f"the number of features must be at least 1, got {target}")
        self.pool: nn.Module = nn.Identity()
        self.is_tokens = len(shape) == 2
        if len(shape) == 1:
            self.num_features = shape[0]
            return
        if len(shape) not in (2, 3):
            raise ValueError(f"a layer's output of shape {shape} is no map, tokens or vector")
        channels, sides = (shape[1], shape[:1]) if self.is_tokens else (shape[0], shape[1:])
        outs = _nearest(channels, sides, target)
        if self.is_tokens:
            self.pool = nn.AdaptiveMaxPool1d(outs[0])
        else:
            self.pool = nn.AdaptiveMaxPool2d((outs[0], outs[1]))
        self.num_features = channels * math.prod(outs)

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        """Return the pooled values (B, num_features)."""
        if self.is_tokens:
            output = output.transpose(1, 2)
        return self.pool(output).flatten(1)


def _nearest(channels: int, sides: tuple[int, ...], target: int) -> list[int]:
    candidates = ([min(out, side) for side in sides] for out in range(1, max(sides) + 1))
    return min(candidates, key=lambda outs: abs(channels * math.prod(outs) - target))
