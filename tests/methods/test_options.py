"""What a recipe may say."""

import dataclasses
import warnings

import pytest

from uic_plugin.hosts.foreign import own_options
from uic_plugin.methods import OWN_METHODS, UICOptions
from uic_plugin.methods.options import DeepClusterOptions
from uic_plugin.recipes_path import compose_recipe
from uic_plugin.runs.settings import prepare_config


def test_defaults_are_the_papers():
    options = UICOptions()
    assert (options.num_pseudo_classes, options.head, options.temperature) == (3000, "linear", 1.0)
    assert options.balanced_sampling
    assert options.fix_empty_classes
    assert options.views == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"num_pseudo_clases": 3},
            "num_pseudo_clases; did you mean num_pseudo_classes",
        ),
        ({"num_pseudo_classes": 0}, "num_pseudo_classes.*at least 2, got 0"),
        ({"num_pseudo_classes": 1}, "num_pseudo_classes.*at least 2, got 1"),
        ({"num_pseudo_classes": "many"}, "got 'many'"),
        ({"num_pseudo_classes": 2.5}, "got 2.5"),
        ({"num_pseudo_classes": True}, "got True"),
        ({"head": "cosine"}, r"\['linear', 'mlp'\], got 'cosine'"),
        ({"temperature": 0}, "above 0, got 0"),
        ({"temperature": -1.0}, "above 0, got -1.0"),
        ({"temperature": float("nan")}, "above 0, got nan"),
        ({"views": 3}, r"\[1, 2\], got 3"),
        ({"label_init": "zeros"}, "'zeros'"),
        ({"balanced_sampling": "yes"}, "true or false, got 'yes'"),
        ({"fix_empty_classes": False}, "balanced_sampling=true needs fix_empty_classes=true"),
        ({"classifier": "quadratic"}, r"\['linear', 'cosine'\], got 'quadratic'"),
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"label_momentum": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"label_momentum": 0.9, "fixed_labels": "a.csv"}, "two ways to the labels"),
        ({"views": 2, "label_view": "center"}, "two ways to the labels"),
        ({"label_source": "step", "label_view": "center"}, "center needs labels that are kept"),
        (
            {"label_view": "center", "label_momentum": 0.9, "fixed_labels": "a.csv"},
            "label_momentum and fixed_labels are two ways",
        ),
        ({"label_source": "swap", "fixed_labels": "a.csv"}, "labels that never change"),
        ({"more_heads": [1]}, r"list of whole numbers of at least 2, got \[1\]"),
        ({"more_heads": "30"}, "list of whole numbers"),
        ({"more_heads": [30], "fixed_labels": "a.csv"}, "labels of one head, heads is 2"),
        ({"bank_share": 0.2}, "bank_share=0.2 is an option of earlier versions of uic that gained"),
        ({"draw_all_first": True}, "draw_all_first=True is an option of earlier versions of uic"),
        ({"instance_share": 0.5}, "label_source=swap: set that, or instance_share=0"),
        ({"label_source": "swap", "instance_share": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"label_source": "swap", "instance_share": 0.5}, "set it to false, or instance_share=0"),
        ({"label_every": 2}, "label_every=2 needs passes over centered views"),
        ({"small_crops": 2}, "small_crops needs label_source=swap"),
        ({"label_source": "step", "label_init": "clusters"}, "needs labels that are kept"),
        ({"fixed_labels": "a.csv", "label_init": "clusters"}, "two ways to the first labels"),
        ({"fixed_labels": "a.csv", "heads": 2}, "labels of one head, heads is 2"),
        ({"on_bad_image": "ignore"}, r"\['stop', 'skip'\]"),
    ],
)
def test_impossible_options_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        UICOptions.from_mapping(given)


def test_a_removed_option_that_did_nothing_is_left_out():
    idle = {"bank_share": 0.0, "draw_all_first": False}
    assert UICOptions.from_mapping({**idle, "heads": 2}) == UICOptions(heads=2)


def test_another_methods_recipe():
    simclr = {"proj_hidden_dim": 2048, "proj_output_dim": 256, "temperature": 0.2}
    with pytest.warns(UserWarning, match="proj_hidden_dim, proj_output_dim, temperature"):
        assert own_options(simclr, []) == {}
    with pytest.warns(UserWarning, match="proj_hidden_dim, proj_output_dim"):
        kept = own_options(
            {**simclr, "temperature": 0.5, "num_pseudo_classes": 10},
            ["method=uic", "method_kwargs.temperature=0.5", "+method_kwargs.num_pseudo_classes=10"],
        )
    assert kept == {"temperature": 0.5, "num_pseudo_classes": 10}


def test_a_recipe_of_uic_with_another_method_of_ours():
    swap = {
        "num_pseudo_classes": 100,
        "label_source": "swap",
        "classifier": "cosine",
        "temperature": 0.1,
        "balanced_sampling": False,
    }
    with pytest.warns(UserWarning, match="balanced_sampling, classifier, label_source, temp"):
        kept = own_options(swap, ["method=deepcluster"], DeepClusterOptions, "deepcluster")
    assert kept == {"num_pseudo_classes": 100}
    # a typed name of another method is a mistake, and no sign of another method's recipe
    typed = {**swap, "pca_dim": 64}
    assert own_options(typed, ["method_kwargs.pca_dim=64"]) == typed


def test_own_recipe_is_taken_as_it_is():
    given = {"temperature": 0.2, "num_pseudo_classes": 7, "typo": 1}
    assert own_options(given, []) == given


CLUSTERS = {"label_source": "swap", "label_init": "clusters", "balanced_sampling": False}


@pytest.mark.parametrize(
    ("given", "name", "needed"),
    [
        ({}, "head_width", "head=mlp"),
        ({"head": "mlp"}, "head_width", None),
        ({}, "price_rate", "swap_balance=prices"),
        ({"swap_balance": "prices"}, "price_rate", "label_source=swap"),
        ({"label_source": "swap", "swap_balance": "prices"}, "price_rate", None),
        ({}, "sinkhorn_iterations", "label_source=swap"),
        ({"label_source": "swap"}, "instance_temperature", "instance_share above 0"),
        ({"label_init": "clusters"}, "kmeans_sample", None),
        ({}, "balanced_sampling", None),
        ({"label_source": "swap"}, "fix_empty_classes", None),
        ({"label_source": "step"}, "balanced_sampling", "label_source=bank or swap"),
        ({"label_source": "step"}, "fix_empty_classes", "label_source=bank or swap"),
        (
            {"label_source": "step", "label_init": "balanced"},
            "label_init",
            "label_source=bank or swap",
        ),
        (CLUSTERS, "label_init", "classifier=cosine or balanced_sampling=true"),
        (CLUSTERS, "kmeans_sample", "classifier=cosine or balanced_sampling=true"),
        ({**CLUSTERS, "classifier": "cosine"}, "label_init", None),
        ({**CLUSTERS, "balanced_sampling": True}, "label_init", None),
        ({**CLUSTERS, "label_source": "bank"}, "label_init", None),
        ({}, "bank_folder", None),
        ({"bank_storage": "mmap"}, "bank_folder", None),
        ({"bank_storage": "device"}, "bank_folder", "bank_storage=mmap or auto"),
        ({}, "temperature", None),
        ({}, "no_such_option", None),
    ],
)
def test_what_an_option_needs_to_have_an_effect(given, name, needed):
    assert UICOptions(**given).needed_for(name) == needed


def test_needs_name_options_and_values_that_there_are():
    for options_class in {method.options_class for method in OWN_METHODS.values()}:
        fields = {field.name: field for field in dataclasses.fields(options_class)}
        for field in fields.values():
            other, _, value = (field.metadata["needs"] or "").partition("=")
            assert not other or other in fields
            for each in value.split(" or ") if value else []:
                assert fields[other].metadata["accepts"](each)


def test_a_typed_option_without_effect_is_said(digits):
    cfg = compose_recipe(
        "digits/uic",
        [f"data.train_path={digits / 'train'}", "method_kwargs.price_rate=0.2"],
    )
    with pytest.warns(UserWarning, match=r"price_rate has no effect without swap_balance=prices"):
        prepare_config(cfg)


def test_what_supervised_training_takes_from_the_annotations_is_said(digits):
    typed = ["method_kwargs.num_pseudo_classes=50", "method_kwargs.heads=2"]
    images = f"data.train_path={digits / 'train'}"
    says = "has no effect without a method that makes its labels, as method=uic"
    with pytest.warns(UserWarning, match=says) as said:
        cfg, _ = prepare_config(compose_recipe("digits/supervised", [images, *typed]))
    lines = "\n".join(str(each.message) for each in said)
    for name in ("num_pseudo_classes", "heads"):
        assert f"method_kwargs.{name} {says}" in lines
    assert (cfg.method_kwargs.num_pseudo_classes, cfg.method_kwargs.heads) == (10, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_config(compose_recipe("digits/supervised", [images]))
