"""The base class of AlexNet and VGG16: convolutions, then fully connected layers, by name.

The modules have the names of torchvision's `VGG`: `features`, `avgpool`, `classifier`. Its weights
load without changes, and so do the AlexNets that DeepCluster and its successors released.
"""

from __future__ import annotations

import torch
from torch import nn

from uic_plugin.networks.sobel import Sobel


class StagedNetwork(nn.Module):
    """An optional Sobel filter, convolutions, and optionally fc6 and fc7.

    Args:
        features: the convolutions.
        layers: public name of each layer to the module whose output it is.
        channels: output channels of `features`.
        image_size: side in pixels of the images that fc6 is made for; others are pooled to it.
        fc_width: width of fc6 and fc7; 0 leaves them out and averages each channel instead.
        dropout: dropout probability of fc6's and fc7's inputs or outputs.
        dropout_first: dropout before each of the two, as in torchvision's AlexNet; else after, as
            in its VGG.
        sobel: filter the images first; `features` takes 2 channels then.
    """

    layers: dict[str, str]
    last_side: int  # of the map that fc6 reads

    def __init__(
        self,
        features: nn.Sequential,
        layers: dict[str, str],
        *,
        channels: int,
        image_size: int,
        fc_width: int,
        dropout: float,
        dropout_first: bool,
        sobel: bool,
    ) -> None:
        if type(fc_width) is not int or fc_width < 0:
            raise ValueError(
                f"backbone.kwargs.fc_width must be a whole number of at least 0, got {fc_width!r}"
            )
        super().__init__()
        self.layers = dict(layers)
        self.sobel: nn.Module = Sobel() if sobel else nn.Identity()
        self.features = features
        if not fc_width:
            self.last_side = 1
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.classifier = nn.Sequential()
            self.num_features = channels
            return
        self.last_side = side = _side_after(features, image_size, 2 if sobel else 3)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        blocks: list[nn.Module] = []
        for name, inputs in (("fc6", channels * side * side), ("fc7", fc_width)):
            block = [nn.Linear(inputs, fc_width), nn.ReLU(inplace=True)]
            blocks += [nn.Dropout(dropout), *block] if dropout_first else block
            self.layers[name] = f"classifier.{len(blocks) - 1}"
            if not dropout_first:
                blocks.append(nn.Dropout(dropout))
        self.classifier = nn.Sequential(*blocks)
        self.num_features = fc_width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (B, num_features) of RGB images (B, 3, H, W)."""
        return self.classifier(self._flat(images))

    def before_last_activation(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features without their last ReLU: fc7's own output (B, num_features).

        DeepCluster's authors cut that ReLU off before they cluster. Without fc6 and fc7 these are
        the features.
        """
        x = self._flat(images)
        last = max((i for i, m in enumerate(self.classifier) if isinstance(m, nn.ReLU)), default=0)
        return self.classifier[:last](x)

    def _flat(self, images: torch.Tensor) -> torch.Tensor:
        """Return what fc6 reads, (B, channels * last_side ** 2)."""
        x = self.features(self.sobel(images))
        # At the network's own size the pooling does nothing, but its gradient is not
        # deterministic on CUDA, which `deterministic: true` refuses.
        if x.shape[-2:] != (self.last_side, self.last_side) or self.last_side == 1:
            x = self.avgpool(x)
        return x.flatten(1)

    def init_weights(self) -> None:
        """Initialise weights for ReLU (He et al., 2015), whatever the width."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)


def check_image_size(image_size: int, smallest: int) -> None:
    """Refuse an invalid side in pixels.

    Raises:
        ValueError: for anything but a whole number of at least `smallest`.
    """
    if type(image_size) is not int or image_size < smallest:
        raise ValueError(
            f"backbone.kwargs.image_size must be a whole number of at least {smallest} pixels, "
            f"got {image_size!r}"
        )


def _side_after(features: nn.Sequential, image_size: int, channels: int) -> int:
    """Return the side of the last map for square images by running a copy without data."""
    import copy

    shadow = copy.deepcopy(features).to("meta").eval()
    return int(shadow(torch.empty(1, channels, image_size, image_size, device="meta")).shape[-1])
