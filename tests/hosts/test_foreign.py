"""One set of rules for the crops of a recipe that was written for two views."""

import pytest
from omegaconf import OmegaConf

from uic_plugin.hosts.foreign import check_two_crops, set_views


@pytest.mark.parametrize(
    ("recipe", "views", "expected"),
    [
        ([(32, 2)], 1, [1]),  # solo-learn's symmetric.yaml
        ([(32, 2)], 2, [2]),
        ([(32, 1), (32, 1)], 1, [1, 0]),  # asymmetric.yaml
        ([(32, 1), (32, 1)], 2, [1, 1]),
        ([(224, 2), (96, 6)], 1, [1, 0]),  # multi-crop: the small ones go
        ([(224, 2), (96, 6)], 2, [2, 0]),
        ([(32, 1), (32, 0)], 1, [1, 0]),  # done already
    ],
)
def test_set_views(recipe, views, expected):
    pipelines = OmegaConf.create([{"crop_size": s, "num_crops": n} for s, n in recipe])
    set_views(pipelines, views)
    assert [pipeline.num_crops for pipeline in pipelines] == expected
    set_views(pipelines, views)  # a second time changes nothing
    assert [pipeline.num_crops for pipeline in pipelines] == expected


def test_crops_of_two_sizes_are_named():
    def pipelines(*crops):
        return OmegaConf.create([{"crop_size": s, "num_crops": n} for s, n in crops])

    for fine in ([(32, 2)], [(32, 1), (32, 1)], [(224, 2), (96, 6)]):
        check_two_crops(pipelines(*fine))
    with pytest.raises(
        ValueError, match=r"crops of 64, 32 pixels.*crop_size of every pipeline to 64"
    ):
        check_two_crops(pipelines((64, 1), (32, 1)))
    with pytest.raises(ValueError, match=r"crops of 32 pixels.*augmentations.0.num_crops=2"):
        check_two_crops(pipelines((32, 1)))
