"""The centered view takes size and normalisation from the augmentation, on either line."""

import pytest
import torch
from PIL import Image
from torchvision import transforms

from uic_plugin.data.center import center_view, find_normalize
from uic_plugin.hosts import load_host
from uic_plugin.recipes_path import compose_recipe


@pytest.mark.parametrize("name", ["digits/uic", "imagenet/alexnet_3k", "small/alexnet_strong"])
def test_of_the_hosts_augmentation(name):
    cfg = compose_recipe(name, [])
    augmentation = load_host().augmentation("custom", cfg.augmentations)
    image = Image.new("RGB", (300, 280), (255, 0, 51))
    size = cfg.augmentations[0].crop_size
    view = center_view(augmentation)(image)
    assert view.shape == (3, size, size)
    normalize = find_normalize(augmentation)
    expected = [
        (colour - mean) / std
        for colour, mean, std in zip((1, 0, 0.2), normalize.mean, normalize.std, strict=True)
    ]
    torch.testing.assert_close(view[:, 0, 0], torch.tensor(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(view, center_view(augmentation)(image))


def test_is_the_middle():
    augmentation = transforms.Compose(
        [transforms.RandomResizedCrop(224), transforms.ToTensor(), transforms.Normalize([0], [1])]
    )
    image = Image.new("L", (512, 256))
    image.paste(255, (144, 16, 368, 240))  # the 224 x 224 pixels in the middle
    assert (center_view(augmentation)(image) == 1).all()


def test_without_a_crop():
    with pytest.raises(ValueError, match="no RandomResizedCrop"):
        center_view(transforms.Compose([transforms.ToTensor(), transforms.Normalize([0], [1])]))
