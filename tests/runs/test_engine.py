"""`augmentation.engine`: views of whole batches in the harness, on both lines of the host."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from uic_plugin.data.draws import EpochOrder
from uic_plugin.data.images import BadImageError
from uic_plugin.data.loaders import view_loader
from uic_plugin.data.raw import RawBatch, RawImages
from uic_plugin.hosts import find_host, load_host
from uic_plugin.hosts.attach import centered
from uic_plugin.hosts.lightning import pl
from uic_plugin.hosts.pipelines import UnknownOperation, center_views_of, pipelines_of
from uic_plugin.pseudo_labels import Draw
from uic_plugin.recipes_path import compose_recipe, list_recipes
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.datasets import pretrain_dataset, pretrain_loader
from uic_plugin.runs.folder import read_checkpoint
from uic_plugin.runs.settings import prepare_config
from uic_plugin.runs.training import pretrain

BATCH = "augmentation.engine=batch"
SMALL = [BATCH, "data.fraction=0.25", "method_kwargs.num_pseudo_classes=10"]


def train(cfg, *callbacks):
    """The last checkpoint of a run."""
    pretrain(cfg, reporter=EpochReporter("test"), callbacks=callbacks)
    return read_checkpoint(Path(cfg.run_dir) / "last.ckpt")


def stop_after(epochs):
    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = trainer.current_epoch + 1 == epochs

    return type("Stop", (pl.Callback,), {"on_train_epoch_end": on_train_epoch_end})()


def assert_same(one, two):
    """Bit for bit: weights, and labels where there are any."""
    tensors = [{**run["state_dict"], **run.get("uic", {}).get("bank", {})} for run in (one, two)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, value in tensors[0].items():
        other = tensors[1][name]
        is_tensor = isinstance(value, torch.Tensor)
        assert torch.equal(value, other) if is_tensor else value == other, name


def from_files(digits):
    """Overrides that read the digits' files, not their decoded copy."""
    return ("data.dataset=custom", f"data.train_path={digits / 'train'}", "data.val_path=null")


def augmentation_of(name, *overrides):
    cfg = compose_recipe(name, list(overrides))
    return load_host().augmentation("custom", cfg.augmentations)


def test_the_hosts_pipelines_are_read():
    (pipeline,) = pipelines_of(augmentation_of("custom/simclr", "augmentations.0.num_crops=3"))
    assert (pipeline.size, pipeline.count, pipeline.scale) == (128, 3, (0.2, 1.0))
    assert (pipeline.interpolation, pipeline.ratio) == ("bicubic", (3 / 4, 4 / 3))
    assert (pipeline.jitter_prob, pipeline.gray_prob, pipeline.flip_prob) == (0.8, 0.2, 0.5)
    assert np.array(pipeline.factors) == pytest.approx(np.array([[0.6, 1.4]] * 3 + [[-0.1, 0.1]]))
    assert (pipeline.blur_prob, pipeline.solarize_prob, pipeline.equalize_prob) == (0, 0, 0)
    assert pipeline.mean == pytest.approx((0.485, 0.456, 0.406))
    (strong,) = pipelines_of(augmentation_of("imagenet/alexnet_strong"))
    assert (strong.blur_prob, strong.sigma) == (0.5, (0.1, 2.0))


@pytest.mark.parametrize("folder", sorted({name.split("/")[0] for name in list_recipes()}))
def test_packaged_recipes_are_read(folder):
    name = next(name for name in list_recipes() if name.startswith(folder))
    assert pipelines_of(augmentation_of(name, "data.train_path=x"))


def test_what_is_not_the_hosts_is_named():
    crop, end = transforms.RandomResizedCrop(8), [transforms.ToTensor()]
    host = augmentation_of("digits/uic")

    def with_parts(*parts):
        host.transforms[0].transform = transforms.Compose([*parts])
        return host

    for parts, message in (
        ([crop, transforms.RandomRotation(9), *end], "RandomRotation is not among"),
        ([transforms.RandomGrayscale(), crop, *end], "RandomResizedCrop comes after"),
        ([crop, *end], "no Normalize"),
        ([transforms.RandomResizedCrop((8, 9)), *end], "not square"),
        ([crop, transforms.GaussianBlur(3), *end], "not the host's"),
    ):
        with pytest.raises(UnknownOperation, match=message):
            pipelines_of(with_parts(*parts))
    with pytest.raises(UnknownOperation, match="no augmentation of the host"):
        pipelines_of(transforms.Compose([crop]))


def test_an_engine_that_cannot_is_refused_or_left(recipe):
    with pytest.raises(ValueError, match=r"augmentation.engine must be one of .*, got 'gpu'"):
        prepare_config(recipe("augmentation.engine=gpu"))
    if find_host().line == "pypi":
        return  # whose pipelines always begin with a random crop
    plain = ["augmentations.0.rrc.enabled=false"]
    cfg, source = prepare_config(recipe(BATCH, *plain))
    with pytest.raises(ValueError, match=r"Resize is not among .*set augmentation.engine=host"):
        pretrain_loader(cfg, source)
    cfg, source = prepare_config(recipe("augmentation.engine=auto", *plain))
    assert not isinstance(pretrain_loader(cfg, source).dataset, RawImages)


def batches_of(cfg, source, *, workers, rank=0, ranks=1, size=16):
    cfg.data.num_workers, cfg.optimizer.batch_size = workers, size
    loader = pretrain_loader(cfg, source)
    order = loader.sampler
    assert isinstance(order, EpochOrder)
    order.follow(lambda: 4, rank, ranks)
    return [list(batch) for batch in loader]  # of views, which workers made, or of decoded images


def test_views_depend_on_the_order_alone(recipe):
    """Not on workers, ranks or batches; two pipelines, small crops among them."""
    cfg, source = prepare_config(recipe(BATCH, "data.fraction=0.1", name="digits/simclr"))
    cfg.augmentations.append(cfg.augmentations[0].copy())
    cfg.augmentations[1].update(crop_size=8, num_crops=3)
    whole = batches_of(cfg, source, workers=0)
    index, views, annotations = whole[0]
    assert [tuple(view.shape) for view in views] == [(16, 3, 16, 16)] * 2 + [(16, 3, 8, 8)] * 3
    assert index.dtype == annotations.dtype == torch.int64
    assert not torch.equal(views[0], views[1])
    for one, two in zip(whole, batches_of(cfg, source, workers=2), strict=True):
        for ours, theirs in zip([one[0], *one[1]], [two[0], *two[1]], strict=True):
            assert torch.equal(ours, theirs)
    shares = [batches_of(cfg, source, workers=0, rank=rank, ranks=2, size=8) for rank in (0, 1)]
    for (index, views, _), *parts in zip(whole, *shares, strict=False):
        for rank, part in enumerate(parts):
            assert torch.equal(part[0], index[rank::2])
            for ours, theirs in zip(part[1], views, strict=True):
                assert torch.equal(ours, theirs[rank::2])


def test_the_label_pass_sees_the_centered_views(recipe):
    cfg, source = prepare_config(recipe())
    dataset = pretrain_dataset(cfg, source)
    given = {"seed": 0, "batch_size": 50, "sampler": range(50)}
    (batch,) = view_loader(dataset, views=center_views_of(dataset.transform), **given)
    assert isinstance(batch, RawBatch)
    index, (ours,), annotations = batch
    ((_, theirs, labels),) = view_loader(centered(dataset), **given)
    assert torch.equal(index, torch.arange(50))
    assert torch.equal(annotations, labels)
    assert (ours - theirs).abs().max() <= 2 / 255 / 0.376 + 1e-5


def test_photographs_of_several_sizes(tmp_path, recipe):
    rng = np.random.default_rng(0)
    for number in range(40):
        height, width = rng.integers(20, 130, 2)
        (tmp_path / "photos").mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    state = train(
        recipe(
            BATCH,
            "data.dataset=custom",
            f"data.train_path={tmp_path / 'photos'}",
            "max_epochs=1",
            "optimizer.batch_size=10",
            "method_kwargs.num_pseudo_classes=5",
            "method_kwargs.label_view=center",
        )
    )
    assert len(state["uic"]["bank"]["targets"].unique()) == 5


def test_a_bad_image_is_named_or_skipped(digits, recipe):
    cfg, source = prepare_config(recipe(*from_files(digits)))
    dataset = pretrain_dataset(cfg, source)
    views = center_views_of(dataset.transform)
    path = dataset.samples[3][0]
    dataset.samples[3] = (path + ".missing", 7)
    draws = [Draw.at(number, 0, number) for number in (2, 3)]
    with pytest.raises(BadImageError, match="missing"):
        RawImages(dataset, views, seed=0).batch(draws)
    reader = RawImages(dataset, views, seed=0, on_bad_image="skip", max_bad_images=1)
    with pytest.warns(UserWarning, match="missing"):
        batch = reader.batch(draws)
    assert batch.index.tolist() == [2, 4]  # the bad image keeps its label
    assert reader.bad_images.value == 1
    with pytest.raises(BadImageError, match="2 images could not be read"):
        reader.batch(draws)


def test_images_in_memory_are_taken_together(digits, recipe):
    cfg, source = prepare_config(recipe(*from_files(digits)))
    dataset = pretrain_dataset(cfg, source)
    read = RawImages(dataset, center_views_of(dataset.transform), seed=0)

    class Packed:
        transform, targets = dataset.transform, [target for _, target in dataset.samples]

        def __len__(self):
            return len(dataset)

        def raw(self, index):
            return read[index][1]

    class Uniform(Packed):
        def raw_batch(self, numbers):
            return np.stack([self.raw(number) for number in numbers])

    draws = [Draw.at(number, 1, place) for place, number in enumerate((5, 2, 9, 2))]
    expected = read.batch(draws)
    for kind in (Packed, Uniform):
        batch = RawImages(kind(), read.views, seed=0).batch(draws)
        for name in ("index", "annotations"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))
        assert torch.equal(batch.pixels.data, expected.pixels.data)
        assert np.array_equal(batch.positions, expected.positions)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_equals_uninterrupted(recipe, tmp_path, workers):
    """At an epoch boundary and within an epoch; labels of centered views, too."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx, *_):
            if (trainer.current_epoch, batch_idx) == (1, 2):
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    settings = [*SMALL, "max_epochs=3", "scheduler.name=none", "method_kwargs.label_view=center"]
    whole = train(recipe(*settings, f"run_dir={tmp_path / 'whole'}", "data.num_workers=0"), Save())
    settings.append(f"data.num_workers={workers}")
    halves = recipe(*settings, f"run_dir={tmp_path / 'halves'}")
    train(halves, stop_after(2))
    assert_same(train(halves), whole)
    middle = f"resume_from_checkpoint={tmp_path / 'middle.ckpt'}"
    assert_same(train(recipe(*settings, middle, f"run_dir={tmp_path / 'rest'}")), whole)


@pytest.mark.parametrize(
    ("given", "begun"), [pytest.param("host", "host", marks=pytest.mark.slow), ("auto", "batch")]
)
def test_a_run_resumes_with_the_engine_that_it_was_begun_with(recipe, tmp_path, given, begun):
    config = tmp_path / "run" / "config.yaml"
    small = ["data.fraction=0.1", "method_kwargs.num_pseudo_classes=10", "scheduler.name=none"]
    train(recipe(*small, f"augmentation.engine={given}", "max_epochs=1"))
    assert f"engine: {begun}" in config.read_text()
    train(recipe(*small, "max_epochs=2"))
    assert f"engine: {begun}" in config.read_text()
    # as versions wrote it that had no other engine than the host's
    config.write_text(config.read_text().replace(f"augmentation:\n  engine: {begun}\n", ""))
    train(recipe(*small, "max_epochs=3"))
    assert "engine: host" in config.read_text()
    # and by versions that had an option more
    kept = config.read_text()
    config.write_text(kept.replace("method_kwargs:\n", "method_kwargs:\n  bank_share: 0.0\n"))
    train(recipe(*small, "max_epochs=4"))
    assert "bank_share" not in config.read_text()
    config.write_text(kept.replace("method_kwargs:\n", "method_kwargs:\n  bank_share: 0.2\n"))
    with pytest.raises(ValueError, match=r"bank_share: 0\.2 there, None here"):
        train(recipe(*small, "max_epochs=4"))


def test_a_method_of_the_host_resumes_with_the_same_images(recipe, tmp_path):
    """SimCLR, whose state is that of its weights; MoCo's momentum starts anew in the host."""
    settings = [BATCH, "data.fraction=0.25", "max_epochs=3", "scheduler.name=none"]
    whole = train(recipe(*settings, f"run_dir={tmp_path / 'whole'}", name="digits/simclr"))
    halves = recipe(*settings, f"run_dir={tmp_path / 'halves'}", name="digits/simclr")
    train(halves, stop_after(1))
    assert_same(train(halves), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["byol", "swav", "dino", "deepcluster", "selflabel", "rotnet", "instdisc"]
)
@pytest.mark.all_digits
def test_every_kind_of_method_trains(recipe, method):
    """Momentum networks, prototypes, labels of passes of both kinds, none at all."""
    settings = ["data.fraction=0.25", "max_epochs=1", f"methods={method}"]
    if method in ("deepcluster", "selflabel"):
        settings.append("method_kwargs.num_pseudo_classes=10")
    weights = train(recipe(BATCH, *settings, name="digits/any"))["state_dict"].values()
    assert all(torch.isfinite(w).all() for w in weights if w.is_floating_point())
