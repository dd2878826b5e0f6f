"""AlexNet of the deep-clustering papers: BatchNorm instead of local response normalisation.

Source: UIC, section 4.1; widths and order of the layers as in DeepCluster (Caron et al., 2018).
"""

from __future__ import annotations

from torch import nn

from uic_plugin.networks.staged import StagedNetwork, check_image_size

# Minimum image side, and kernel, stride and padding of the first convolution. The original one
# would shrink the maps of small images to nothing.
_STEMS = ((128, (11, 4, 2)), (64, (7, 2, 3)), (0, (5, 1, 2)))
_LAYERS = {f"conv{i}": f"features.{index}" for i, index in enumerate((2, 6, 10, 13, 16), 1)}


class AlexNet(StagedNetwork):
    """Five convolutions (96-256-384-384-256), fc6 and fc7 of 4096 with dropout.

    Args:
        image_size: side in pixels; below 128 the first convolution is finer.
        width: multiplies the channels of the convolutions.
        fc_width: width of fc6 and fc7; 0 leaves them out.
        dropout: before fc6 and fc7.
        sobel: grey gradients instead of colours.
    """

    def __init__(
        self,
        image_size: int = 224,
        width: float = 1.0,
        fc_width: int = 4096,
        dropout: float = 0.5,
        sobel: bool = True,
    ) -> None:
        check_image_size(image_size, 16)
        c1, c2, c3, c4, c5 = (max(1, round(width * c)) for c in (96, 256, 384, 384, 256))
        stem = next(values for smallest, values in _STEMS if image_size >= smallest)
        features = nn.Sequential(
            *_block(2 if sobel else 3, c1, *stem),
            nn.MaxPool2d(3, 2),
            *_block(c1, c2, 5, 1, 2),
            nn.MaxPool2d(3, 2),
            *_block(c2, c3, 3, 1, 1),
            *_block(c3, c4, 3, 1, 1),
            *_block(c4, c5, 3, 1, 1),
            nn.MaxPool2d(3, 2),
        )
        super().__init__(
            features,
            _LAYERS,
            channels=c5,
            image_size=image_size,
            fc_width=fc_width,
            dropout=dropout,
            dropout_first=True,
            sobel=sobel,
        )
        self.init_weights()


def _block(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
