"""The picture of what calls what has the names and the order of the code."""

import re
from pathlib import Path

from uic_plugin.augmentation import RandomViews
from uic_plugin.data.raw import RawImages
from uic_plugin.methods import PseudoLabelMethod
from uic_plugin.methods import pseudo_label as template
from uic_plugin.methods.kept_labels import KeptLabels
from uic_plugin.networks.heads import PseudoClassHead
from uic_plugin.pseudo_labels import (
    ClassBalancedSampler,
    Draw,
    EmptyClassFixer,
    EpochTelemetry,
    PseudoLabelBank,
)
from uic_plugin.runs.datasets import pretrain_loader
from uic_plugin.runs.settings import build_method, prepare_config

PAGE = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text()
PICTURE = PAGE.split("## What calls what")[1].split("```")[1]
CLASSES = {
    cls.__name__: cls
    for cls in (
        ClassBalancedSampler,
        Draw,
        EmptyClassFixer,
        EpochTelemetry,
        KeptLabels,
        PseudoClassHead,
        PseudoLabelBank,
        PseudoLabelMethod,
        RandomViews,
        RawImages,
    )
}
MEMBER = re.compile(r"\b([A-Z]\w+)\.(\w+)")


def members(part, mark=""):
    """Names of a class's members in a part of the picture, in its order."""
    return [name for _, name in re.findall(MEMBER.pattern + mark, part)]


def test_every_name_is_one_of_the_code():
    named = MEMBER.findall(PICTURE)
    assert len(named) > 15
    for cls, name in named:
        assert hasattr(CLASSES[cls], name), f"{cls}.{name}"
    camel = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b|\bDraw\b", PICTURE))
    assert camel == set(CLASSES)


def test_the_template_lists_the_same_hooks():
    """Those that a method may replace, of a step and of an epoch boundary."""
    listed = re.findall(r"^    (\w+) \*", template.__doc__, re.MULTILINE)
    step = PICTURE.split("a training step")[1]
    assert members(step, r" +\*") == listed
    for name in listed:
        assert name in vars(PseudoLabelMethod), name


def test_calls_come_in_the_order_of_the_picture(recipe, host_trainer):
    cfg, source = prepare_config(recipe("max_epochs=1"))
    method = build_method(cfg)
    _, before, step, boundary = re.split(r"^(?:before|a training|the epoch)", PICTURE, flags=re.M)
    template_name = r"PseudoLabelMethod\.(\w+)"
    names = [re.findall(template_name, part) for part in (before, step, boundary)]
    calls = []

    def noted(name, call):
        def note(*given, **named):
            calls.append(name)
            return call(*given, **named)

        return note

    for name in {name for part in names for name in part}:
        setattr(method, name, noted(name, getattr(method, name)))
    loader = pretrain_loader(cfg, source)
    host_trainer().fit(method, loader)
    first = calls.index("training_step")
    second = calls.index("training_step", first + 1)
    assert calls[first:second] == names[1]
    assert calls[-len(names[2]) :] == names[2]
    assert calls.count("start_epoch") == calls.count("_end_epoch") == 1
