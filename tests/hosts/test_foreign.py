"""One set of rules for the crops of a recipe that was written for two views."""

import pytest
from host_lines import LINE
from omegaconf import OmegaConf

from uic_plugin.hosts.foreign import (
    check_host_options,
    check_two_crops,
    count_crops,
    set_views,
)


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


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ([(32, 2)], (2, 0)),
        ([(224, 2), (96, 6)], (2, 6)),
        ([(32, 1), (32, 1), (16, 0)], (2, 0)),
        ([(224, 1), (96, 4), (224, 1)], (2, 4)),
    ],
)
def test_crops_are_large_or_small(recipe, expected):
    pipelines = OmegaConf.create([{"crop_size": s, "num_crops": n} for s, n in recipe])
    assert count_crops(pipelines) == expected


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


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("temperature", "abc", "a number"),
        ("temperature", True, "a number"),
        ("proj_hidden_dim", 2.5, "a whole number"),
        ("proj_hidden_dim", -1, "a whole number"),
        ("norm_last_layer", "yes", "true or false"),
        ("num_prototypes", [100, "x"], "whole numbers"),
    ],
)
def test_options_of_the_host_of_another_kind_are_refused(option, value, wanted):
    with pytest.raises(ValueError, match=f"method_kwargs.{option} must be {wanted}.*got"):
        check_host_options({"proj_output_dim": 128, option: value})


def test_options_that_no_method_of_the_host_has_are_refused():
    with pytest.raises(ValueError, match=r"unknown option method_kwargs\.tau.*recipe has lamb"):
        check_host_options({"lamb": 0.1, "tau": 1})


def test_what_the_host_takes_passes():
    check_host_options({"clip_grad": False, "queue_size": 0, "num_prototypes": [100, 300]})
    check_host_options({"temperature": 1, "norm_last_layer": True, "num_prototypes": 100})


@pytest.mark.skipif(LINE != "pypi", reason="the arguments of the PyPI line's script")
def test_arguments_of_the_hosts_script():
    from argparse import ArgumentParser

    from uic_plugin.hosts import load_host

    parser = load_host().METHODS["uic"].add_model_specific_args(ArgumentParser())
    for action in parser._actions:
        action.required = False
    given, _ = parser.parse_known_args(
        ["--max_bad_images", "5", "--fixed_labels", "a.csv", "--more_heads", "30,300"]
    )
    assert (given.max_bad_images, given.fixed_labels) == (5, "a.csv")
    assert given.more_heads == [30, 300]
    defaults, _ = parser.parse_known_args([])
    assert (defaults.max_bad_images, defaults.balanced_sampling) == (None, True)
