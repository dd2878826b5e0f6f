# python lightly_lightning.py FOLDER    UIC as a LightningModule of your own, with lightly's dataset
import sys

import pytorch_lightning as pl
import torchvision
from lightly.data import LightlyDataset
from torch import nn, optim
from torch.utils.data import DataLoader

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
from uic_plugin.lightly import NumberedImages, UICHead, UICTransform


class UIC(pl.LightningModule):
    def __init__(self, num_images, classes=100):
        super().__init__()
        resnet = torchvision.models.resnet18()
        self.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
        self.head, self.fixer = UICHead(512, classes), EmptyClassFixer(classes)
        self.bank = PseudoLabelBank(num_images, classes)
        self.bank.fix_empty_classes(self.fixer)

    def training_step(self, batch, batch_idx):
        index, views, _, _ = batch
        logits = self.head(self.backbone(views[0]))
        self.bank.update(index, logits.argmax(1))  # the next epoch's labels
        return nn.functional.cross_entropy(logits, self.bank.targets(index))

    def on_train_epoch_end(self):
        self.bank.commit(self.fixer)

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


if __name__ == "__main__":
    images = NumberedImages(LightlyDataset(sys.argv[1], transform=UICTransform(64)))
    model = UIC(len(images))
    sampler = ClassBalancedSampler(model.bank, seed=0)  # in the place of shuffle=True
    pl.Trainer(max_epochs=10).fit(model, DataLoader(images, 64, sampler=sampler, drop_last=True))
