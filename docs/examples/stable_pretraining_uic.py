"""UIC inside stable-pretraining: its Module, DataModule, Manager and OnlineKNN as they are.

    python -m uic_plugin.cli data digits digits
    python stable_pretraining_uic.py digits

A draft of an adapter, on scikit-learn's digits. Of this package it takes the method, the order and
the seeded views, none of which imports Lightning or a host.
"""

import sys
from functools import partial
from pathlib import Path

import lightning
import stable_pretraining as spt
import torch
from stable_pretraining.data import transforms
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import ImageFolder

from uic_plugin.data.images import annotations_of, fingerprint_of, path_of
from uic_plugin.data.loaders import loader_in_bank_order
from uic_plugin.hosts.resume import resume_labels
from uic_plugin.methods import VariedUIC
from uic_plugin.networks.conv4 import Conv4
from uic_plugin.pseudo_labels import ClassBalancedSampler, ShuffledSampler
from uic_plugin.ranks import RankInfo

OPTIONS = {"label_source": "swap", "num_pseudo_classes": 30, "more_heads": [10]}
OPTIONS |= {"balanced_sampling": False, "fix_empty_classes": False, "instance_share": 0.5}
OPTIONS |= {"head": "mlp", "head_layers": 1, "head_width": 128, "head_output": 32}
OPTIONS |= {"classifier": "cosine", "temperature": 0.1}


def uic_forward(self, batch: dict, stage: str) -> dict:
    """Return features and annotations for the callbacks, and in training the method's loss.

    Args:
        batch: {"views": [{"image", "label", "sample_idx"}, ...]} in training, one view elsewhere.
        stage: "fit", "validate", "test" or "predict".
    """
    if stage != "fit":
        return {"embedding": self.backbone(batch["image"]).flatten(1), "label": batch["label"]}
    first, images = batch["views"][0], [view["image"] for view in batch["views"]]
    own_batch = [first["sample_idx"], images, first["label"]]
    loss = VariedUIC.training_step(self, own_batch, batch["batch_idx"])
    return {"loss": loss, **self.seen}


class Features:
    """What `VariedUIC.training_step` asks its host for: features, and a loss of annotations."""

    def training_step(self, batch: list, batch_idx: int) -> dict:
        """Return the features of one view; probes are callbacks here, and have losses of their own.

        Args:
            batch: [index (B,), [view (V * B, C, H, W)], annotations (V * B,)].
            batch_idx: number of the batch within the epoch.
        """
        _, (view,), annotations = batch
        features = self.backbone(view).flatten(1)
        self.seen = {"embedding": features.detach(), "label": annotations}
        return {"feats": [features], "loss": features.new_zeros(())}


class UIC(VariedUIC, Features, spt.Module):
    """UIC as stable-pretraining's Module.

    Args:
        seed: of head, labels, order and views.
        options: of the method.
        parts: what `Module` takes: `forward`, `backbone`, `optim`, `hparams`.
    """

    def __init__(self, feature_dim: int, num_classes: int, seed: int, options: dict, **parts):
        super().__init__(**parts)
        self.build_head(feature_dim, self.make_options(options, num_classes), seed)

    @property
    def _network(self):
        return self.backbone

    def setup(self, stage: str) -> None:
        """Make the bank for the images, and put the training loader into its order."""
        super().setup(stage)
        if stage != "fit":
            return
        trainer, source = self.trainer, self.trainer.fit_loop._data_source
        loader = source.dataloader()  # of the DataModule
        if type(loader.dataset) is not spt.data.FromTorchDataset or loader.dataset.gpu_transform:
            raise ValueError("this draft needs a FromTorchDataset without gpu_transform")
        images = loader.dataset.dataset
        self.batch_size, self.image_name = loader.batch_size, partial(path_of, images)
        rank = (trainer.node_rank, trainer.local_rank, trainer.num_devices)
        about = (len(images), fingerprint_of(images), annotations_of(images))
        self.attach(*about, rank=RankInfo(trainer.strategy.root_device, *rank))
        order = ClassBalancedSampler if self.plan.is_balanced else ShuffledSampler
        share = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        sampler = order(self.bank, seed=self.seed, take_skip=self.take_skip, **share)
        source.instance = loader_in_bank_order(loader, sampler, seed=self.seed)
        source.name = ""  # no longer a method of the DataModule

    def training_step(self, batch: dict, batch_idx: int) -> dict:
        """Do stable-pretraining's step, which calls `forward` and optimizes by hand."""
        return spt.Module.training_step(self, batch, batch_idx)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take over the labels, and have Lightning resume at their step."""
        super().on_load_checkpoint(checkpoint)
        resume_labels(self, checkpoint)


def loader_of(folder: Path, *, train: bool) -> DataLoader:
    """Return stable-pretraining's loader: two random views of an image in training, else one."""
    norm = {"mean": [0.305] * 3, "std": [0.376] * 3}
    crop = transforms.RandomResizedCrop(16, scale=(0.7, 1.0))
    jitter = transforms.ColorJitter(0.4, 0.4, 0.1, 0.1, p=0.8)
    view = transforms.Compose(crop, jitter, transforms.ToImage(**norm))
    plain = transforms.Compose(transforms.Resize((16, 16)), transforms.ToImage(**norm))
    transform = transforms.MultiViewTransform([view, view]) if train else plain
    files = ImageFolder(str(folder / ("train" if train else "val")))
    dataset = spt.data.FromTorchDataset(files, names=["image", "label"], transform=transform)
    return DataLoader(dataset, batch_size=64, shuffle=train, drop_last=train)


def main(folder: Path, *, seed: int = 0, ckpt: str | None = None, callbacks: tuple = ()) -> UIC:
    """Train by the Manager; print the k-NN accuracy and the class sizes of every head's bank."""
    lightning.seed_everything(seed)  # the Manager's seed comes after the network is made
    network = Conv4()
    optim = {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-4)}
    parts = {"forward": uic_forward, "backbone": network, "optim": optim, "hparams": OPTIONS}
    module = UIC(network.num_features, 10, seed, OPTIONS, **parts)
    top1 = MulticlassAccuracy(10, average="micro")
    knn = spt.OnlineKNN("knn", "embedding", "label", 2816, {"top1": top1}, num_classes=10, k=20)
    loaders = {"train": loader_of(folder, train=True), "val": loader_of(folder, train=False)}
    data = spt.data.DataModule(**loaders)
    given = {"num_sanity_val_steps": 0, "enable_progress_bar": False, "max_epochs": 2}
    trainer = lightning.Trainer(accelerator="cpu", callbacks=[knn, *callbacks], **given)
    spt.Manager(trainer, module, data, seed=seed, ckpt_path=ckpt, weights_only=False)()
    print(f"k-NN accuracy {float(trainer.callback_metrics['eval/knn_top1']):.4f}")
    for number, bank in enumerate(module.banks):
        sizes = torch.bincount(bank.targets(torch.arange(len(bank))), minlength=bank.num_classes)
        print(f"head {number}: {bank.num_classes} classes of {len(bank)} images, {sizes.tolist()}")
    return module


if __name__ == "__main__":
    main(Path(sys.argv[1]))
