"""Augmentation of whole batches as tensor operations, on the device of the training.

It has the operations of solo-learn's pipelines and makes of them what Pillow does, image by image,
to within 2 of 255 steps: random resized crop, colour jitter, grayscale, Gaussian blur, solarize,
equalize, horizontal flip, normalisation. It needs torch, torchvision, numpy and Pillow alone.
"""

from uic_plugin.augmentation.pipeline import Pipeline
from uic_plugin.augmentation.pixels import Pixels
from uic_plugin.augmentation.views import BatchViews, CenterViews, RandomViews

__all__ = ["BatchViews", "CenterViews", "Pipeline", "Pixels", "RandomViews"]
