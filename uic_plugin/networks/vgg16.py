"""VGG16 with BatchNorm (UIC, Table 8); torchvision's convolutions."""

from __future__ import annotations

from torch import nn

from uic_plugin.networks.staged import StagedNetwork, check_image_size

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16(StagedNetwork):
    """Thirteen 3x3 convolutions in five stages; `conv1` ... `conv5` are the stages' last maps.

    Args:
        image_size: side in pixels that fc6 is made for.
        width: multiplies the channels of the convolutions.
        fc_width: width of fc6 and fc7; 0 leaves them out.
        dropout: after fc6 and fc7.
        sobel: grey gradients instead of colours.
    """

    def __init__(
        self,
        image_size: int = 224,
        width: float = 1.0,
        fc_width: int = 4096,
        dropout: float = 0.5,
        sobel: bool = False,
    ) -> None:
        check_image_size(image_size, 32)
        modules: list[nn.Module] = []
        layers = {}
        inputs = 2 if sobel else 3
        for number, (channels, count) in enumerate(_STAGES, 1):
            outputs = max(1, round(width * channels))
            for _ in range(count):
                modules += [
                    nn.Conv2d(inputs, outputs, 3, padding=1),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                inputs = outputs
            layers[f"conv{number}"] = f"features.{len(modules) - 1}"
            modules.append(nn.MaxPool2d(2, 2))
        super().__init__(
            nn.Sequential(*modules),
            layers,
            channels=inputs,
            image_size=image_size,
            fc_width=fc_width,
            dropout=dropout,
            dropout_first=False,
            sobel=sobel,
        )
        self.init_weights()
