# python lightly_distributed.py FOLDER 2    the same in two processes: labels are exchanged
import sys

import pytorch_lightning as pl
import torch
from lightly.data import LightlyDataset
from lightly_lightning import UIC as AloneUIC
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from uic_plugin import ClassBalancedSampler
from uic_plugin.lightly import NumberedImages, UICTransform


class UIC(AloneUIC):
    def training_step(self, batch, batch_idx):
        index, views, _, _ = batch
        logits = self.head(self.backbone(views[0]))
        answers = self.all_gather(torch.stack([index, logits.argmax(1)])).view(-1, 2, len(index))
        self.bank.update(answers[:, 0].flatten(), answers[:, 1].flatten())  # the same on all ranks
        return cross_entropy(logits, self.bank.targets(index))


class Images(pl.LightningDataModule):
    def __init__(self, images, bank):
        super().__init__()
        self.images, self.bank = images, bank

    def train_dataloader(self):  # called when the ranks are known
        share = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        sampler = ClassBalancedSampler(self.bank, seed=0, **share)
        return DataLoader(self.images, 64, sampler=sampler, drop_last=True)


if __name__ == "__main__":
    images = NumberedImages(LightlyDataset(sys.argv[1], transform=UICTransform(64)))
    model = UIC(len(images))
    trainer = pl.Trainer(max_epochs=10, devices=int(sys.argv[2]), strategy="ddp")
    trainer.fit(model, datamodule=Images(images, model.bank))
